// Shared by the pages: the URL by which the browser reaches this host, code blocks to copy, and tabs.

/** The base URL of the proxy without a slash at its end, with the path prefix of a reverse proxy. */
export const base = new URL(".", location.href).href.replace(/\/$/, "");

/** An element with attributes and children: elements, and texts, which stay texts. Falsy ones are omitted. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter(Boolean));
  return made;
}

/** A button that copies the code of the figure around it. */
export function copyButton() {
  return element("button", { type: "button", class: "copy quiet tiny", "aria-live": "polite" }, "Copy");
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages without TLS have no clipboard, but may copy what is selected.
  const area = element("textarea", { class: "hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser does not permit it");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  try {
    await copy(button.closest("figure").querySelector("pre").textContent);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy it";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

/** Show one of the figures in `box` at a time, behind tabs with their titles (WAI-ARIA's pattern). */
function addTabs(box) {
  const figures = [...box.querySelectorAll(":scope > figure")];
  const list = element("div", { class: "tabs", role: "tablist", "aria-label": box.dataset.tabs });
  const tabs = figures.map((figure, index) => {
    figure.id = `tab-${figure.dataset.title.toLowerCase()}`;
    figure.setAttribute("role", "tabpanel");
    const attributes = { type: "button", role: "tab", "aria-controls": figure.id };
    const tab = element("button", attributes, figure.dataset.title);
    tab.addEventListener("click", () => choose(index));
    return tab;
  });
  function choose(chosen) {
    figures.forEach((figure, index) => { figure.hidden = index !== chosen; });
    tabs.forEach((tab, index) => {
      tab.setAttribute("aria-selected", String(index === chosen));
      tab.tabIndex = index === chosen ? 0 : -1;
    });
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = (tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length;
    choose(next);
    tabs[next].focus();
  });
  list.append(...tabs);
  box.prepend(list);
  choose(0);
}

for (const place of document.querySelectorAll("[data-base]")) place.textContent = base;
for (const caption of document.querySelectorAll("figure.code > figcaption")) caption.append(copyButton());
for (const box of document.querySelectorAll("[data-tabs]")) addTabs(box);
