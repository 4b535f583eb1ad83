// The page: login, navigation and the views. A view is a module with `show(root, context)`, which may return
// a function that ends what it began.

import * as api from "./api.js";
import { el, icon, say, setText } from "./dom.js";
import { follow, Live } from "./live.js";
import { show as showExplain } from "./explain.js";
import { show as showKeys } from "./keys.js";
import { show as showNow } from "./now.js";
import { show as showPlayground } from "./playground.js";
import { show as showRequests } from "./requests.js";
import { show as showSpend } from "./spend.js";
import { show as showTargets } from "./targets.js";
import { show as showUsage } from "./usage.js";

/** @typedef {{name: string, title: string, icon: string, show: Function, kind: "admin"|"client"|"hidden"}} View */
/** @type {View[]} */
const VIEWS = [
  { name: "now", title: "Now", kind: "admin", show: showNow, icon: "M3 12h4l3-8 4 16 3-8h4" },
  {
    name: "targets",
    title: "Targets",
    kind: "admin",
    show: showTargets,
    icon: "M4 5h16v5H4zM4 14h16v5H4zM8 7.5h.01M8 16.5h.01",
  },
  { name: "requests", title: "Requests", kind: "admin", show: showRequests, icon: "M4 6h16M4 12h16M4 18h10" },
  { name: "spend", title: "Spend", kind: "admin", show: showSpend, icon: "M5 20V11M12 20V4M19 20v-6" },
  {
    name: "keys",
    title: "Keys",
    kind: "admin",
    show: showKeys,
    icon: "M8 20a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM11 13l8-8M16 8l3 3",
  },
  {
    name: "explain",
    title: "Explain",
    kind: "admin",
    show: showExplain,
    icon: "M5 5v6a4 4 0 0 0 4 4h10M15 11l4 4-4 4M5 5h.01",
  },
  {
    name: "playground",
    title: "Playground",
    kind: "admin",
    show: showPlayground,
    icon: "M4 5h16v11H9l-5 4z",
  },
  { name: "usage", title: "Usage", kind: "client", show: showUsage, icon: "M5 20V11M12 20V4M19 20v-6" },
];

const main = document.getElementById("main");
const loginForm = document.getElementById("login");
const top = document.getElementById("top");
const nav = document.getElementById("nav");

let live = null; // of an administrator's session
let session = null;
let close = () => {};
let kept = {}; // what views keep while others are shown

async function begin() {
  try {
    const found = await api.session();
    if (found === null) showLogin("");
    else enter(found);
  } catch (error) {
    showLogin(error.message);
  }
}

// Login

function showLogin(message) {
  leave();
  document.title = "Log in · sanic-proxy";
  loginForm.hidden = false;
  setText(loginForm.querySelector("[role=alert]"), message);
  loginForm.elements.key.focus();
}

loginForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { key } = loginForm.elements;
  const button = loginForm.querySelector("button");
  const alert = loginForm.querySelector("[role=alert]");
  setText(alert, "");
  button.disabled = true;
  try {
    enter(await api.login(key.value));
  } catch (error) {
    setText(alert, loginError(error));
    key.select();
  } finally {
    button.disabled = false;
  }
});

function loginError(error) {
  if (error.status === 429) return `Too many attempts. Try again in ${error.retryAfter ?? 60} s.`;
  if (error.status === 401) return "This key does not open the page.";
  return error.message;
}

function enter(found) {
  session = found;
  loginForm.reset(); // the key stays in no field
  loginForm.hidden = true;
  top.hidden = nav.hidden = false;
  setText(document.getElementById("who"), found.name || found.kind);
  const views = VIEWS.filter((view) => view.kind === found.kind);
  nav.replaceChildren(
    ...views.map((view) =>
      el("a", { href: `#/${view.name}`, id: `to-${view.name}` }, icon(view.icon), view.title),
    ),
  );
  if (found.kind === "admin") {
    live = new Live();
    follow(live, { state: showConnection });
    live.start();
  }
  document.getElementById("connection").hidden = live === null;
  go();
}

function leave() {
  close();
  close = () => {};
  live?.stop();
  Object.values(kept).forEach((each) => each.close());
  kept = {};
  live = session = null;
  closeDialogs();
  top.hidden = nav.hidden = true;
  nav.replaceChildren();
  main.replaceChildren();
  document.getElementById("lost").hidden = true;
}

const closeDialogs = () => document.querySelectorAll("dialog").forEach((node) => node.close());

document.getElementById("logout").addEventListener("click", async () => {
  try {
    await api.logout();
    showLogin("");
  } catch (error) {
    say(error.message, "bad");
  }
});

document.addEventListener("sessionend", () => {
  if (session !== null) showLogin("Your session has ended. Log in again.");
});

function showConnection() {
  const connection = document.getElementById("connection");
  const isLost = live?.state === "lost";
  connection.className = `dot small ${isLost ? "bad" : live?.state === "open" ? "good" : "warn"}`;
  setText(connection, isLost ? "Reconnecting" : live?.state === "open" ? "Live" : "Connecting");
  document.getElementById("lost").hidden = !isLost;
}

// Navigation: `#/view?parameter=value`

function go() {
  if (session === null) return;
  const [name, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const allowed = VIEWS.filter(
    (view) => view.kind === session.kind || (view.name === "usage" && session.kind === "admin"),
  );
  const view = allowed.find((each) => each.name === name) ?? allowed[0];
  close();
  closeDialogs();
  nav.querySelectorAll("a").forEach((link) => link.removeAttribute("aria-current"));
  // Administrators come to the usage of a key from the list of keys.
  const link = document.getElementById(`to-${view.name}`) ?? document.getElementById("to-keys");
  link.setAttribute("aria-current", "page");
  link.scrollIntoView({ block: "nearest", inline: "center" });
  document.title = `${view.title} · sanic-proxy`;
  const heading = el("h1", { tabindex: "-1" }, view.title);
  const root = el("div", { class: "stack view" });
  main.replaceChildren(heading, root);
  close =
    view.show(root, {
      live,
      session,
      kept,
      parameters: new URLSearchParams(search),
      remember: remember(view),
    }) ?? (() => {});
  heading.focus({ preventScroll: true });
  scrollTo({ top: 0, behavior: "instant" });
}

/** Keep a view's parameters in the address, so that it can be shared and reloaded. */
const remember = (view) => (parameters) => {
  const target = api.query(`#/${view.name}`, parameters);
  if (location.hash !== target) history.replaceState(null, "", target);
};

addEventListener("hashchange", go);

// A plain link to #main would be taken for a view.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  (main.querySelector("h1") ?? loginForm.elements.key).focus();
});

begin();
