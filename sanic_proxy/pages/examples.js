// Example requests as commands for a shell.

// The model in the document's examples; the reader's takes its place.
const MODEL = "echo/echo";
const BREAK = " \\\n  ";

/** `text` as one word of a shell's command. */
function quoted(text) {
  return /^[\w:/.,=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function parameters(operation, place) {
  return operation.parameters.filter((each) => each.in === place);
}

function address(base, path, operation) {
  const examples = {};
  for (const { name, example } of parameters(operation, "path")) examples[name] = example;
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => examples[name] ?? name.toUpperCase());
  const query = parameters(operation, "query")
    .filter((each) => each.example !== undefined)
    .map((each) => `${each.name}=${encodeURI(each.example)}`);
  return base + filled + (query.length ? `?${query.join("&")}` : "");
}

function body(content) {
  const [[media, { example }]] = Object.entries(content);
  if (media.startsWith("multipart/")) {
    return Object.entries(example).map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`);
  }
  const line = JSON.stringify(example);
  const lines = Object.entries(example).map(([name, value]) => `  "${name}": ${JSON.stringify(value)}`);
  const text = line.length > 56 ? `{\n${lines.join(",\n")}\n}` : line;
  return ["-H 'content-type: application/json'", `-d ${quoted(text)}`];
}

/**
 * The command that sends an operation's example to the proxy at `base`. In it, the name of a model for the
 * reader to choose stands between two NULs.
 */
export function command(base, method, path, operation) {
  const names = operation.security.flatMap(Object.keys);
  const key = names.includes("admin") ? "SANIC_PROXY_ADMIN_KEY" : "SANIC_PROXY_KEY";
  const url = address(base, path, operation);
  const header = names.length ? [`-H "authorization: Bearer $${key}"`] : [];
  if (operation.responses["101"]) {
    return ["websocat", ...header, quoted(url.replace(/^http/, "ws"))].join(BREAK);
  }
  const options = [...header];
  const { "x-example-provider": provider, "x-example-output": output } = operation;
  if (provider) options.push(`-H 'x-provider: ${provider}'`);
  if (operation.requestBody) options.push(...body(operation.requestBody.content));
  if (output) options.push(`--output ${output}`);
  const isImplied = method === "get" || (method === "post" && operation.requestBody);
  const start = `curl ${isImplied ? "" : `-X ${method.toUpperCase()} `}${quoted(url)}`;
  return [start, ...options].join(BREAK).replaceAll(MODEL, `\0${MODEL}\0`);
}
