// Shows the OpenAPI document of this host. Loads nothing else.
"use strict";

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function schemaBlock(content) {
  const schema = content && content["application/json"] && content["application/json"].schema;
  return schema ? element("pre", JSON.stringify(schema, null, 2)) : null;
}

function details(summary, block) {
  const made = element("details");
  made.append(element("summary", summary), block);
  return made;
}

function operation(path, method, described) {
  const section = element("section");
  const title = element("h2");
  title.append(element("span", method.toUpperCase(), "method"), element("code", path));
  section.append(title, element("p", described.summary || ""));
  const body = described.requestBody && schemaBlock(described.requestBody.content);
  if (body) section.append(details("Request body", body));
  const table = element("table");
  for (const [status, response] of Object.entries(described.responses || {})) {
    const row = element("tr");
    row.append(element("td", status), element("td", response.description || ""));
    table.append(row);
  }
  section.append(table);
  return section;
}

async function show() {
  const answer = await fetch("openapi.json");
  const spec = await answer.json();
  document.getElementById("title").textContent = spec.info.title + " " + spec.info.version;
  const routes = document.getElementById("routes");
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, described] of Object.entries(methods)) {
      routes.append(operation(path, method, described));
    }
  }
}

show().catch((error) => {
  document.getElementById("routes").append(element("p", "The document could not be read: " + error));
});
