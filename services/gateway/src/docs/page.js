"use strict";
// The page: contents, sign-in, operations.

const session = { token: "" }; // nowhere else: gone with the page
const element = (id) => document.getElementById(id);
const METHODS = ["get", "post", "put", "delete"];

function operationsOf(spec, tag) {
  return Object.entries(spec.paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]?.tags.includes(tag)).map((method) => ({ method, path, operation: methods[method] })));
}

function show(spec) {
  element("version").textContent = spec.info.version;
  element("about").replaceChildren(...prose(spec.info.description));
  for (const { name, description } of spec.tags) {
    const operations = operationsOf(spec, name);
    element("operations").append(h("section", { "aria-labelledby": `tag-${name}` },
      h("h2", { id: `tag-${name}` }, name), h("p", {}, description ?? ""),
      ...operations.map(({ method, path, operation }) => operationElement(spec, session, method, path, operation))));
    element("index").append(h("section", {}, h("h2", {}, name), h("ul", {}, ...operations.map(indexEntry))));
  }
}

function indexEntry({ method, path, operation }) {
  return h("li", { "data-words": `${method} ${path} ${operation.summary}`.toLowerCase(), "data-for": operation.operationId },
    h("a", { href: `#${operation.operationId}` },
      h("span", { class: `method ${method}` }, method.toUpperCase()), h("span", {}, path)));
}

function filter() {
  const words = element("filter").value.toLowerCase().split(/\s+/);
  for (const entry of document.querySelectorAll("#index li")) {
    entry.hidden = !words.every((word) => entry.dataset.words.includes(word));
    element(entry.dataset.for).hidden = entry.hidden;
  }
  for (const section of document.querySelectorAll("#index section, #operations section:not(.try)")) {
    section.hidden = !section.querySelector("li[data-for]:not([hidden]), .operation:not([hidden])");
  }
}

function openTarget() {
  const target = element(decodeURIComponent(location.hash.slice(1)));
  if (!target?.classList.contains("operation")) return;
  target.open = true;
  target.scrollIntoView();
  target.querySelector("summary").focus({ preventScroll: true });
}

function hold(token, words) {
  session.token = token;
  element("who").textContent = words;
  for (const id of ["sign-in", "paste"]) element(id).hidden = Boolean(token);
  element("sign-out").hidden = !token;
}

function post(url, body) {
  const headers = new Map([["Accept", "application/json"]]);
  if (body) headers.set("Content-Type", "application/json");
  return send({ method: "POST", url, headers, body: body && JSON.stringify(body) }, session.token);
}

function listen(id, act) {
  element(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      await act(Object.fromEntries(new FormData(form)));
      form.reset();
    } catch (error) {
      element("who").textContent = `That failed: ${error.message}`;
    }
    button.disabled = false;
  });
}

listen("sign-in", async ({ email, password }) => {
  const answer = await post("/auth/login", { email, password });
  const found = JSON.parse(answer.text);
  if (!answer.ok) throw new Error(found.error.message);
  hold(found.access_token, `Signed in as ${email}, for ${Math.round(found.expires_in / 60)} minutes.`);
});
listen("paste", async ({ token }) => hold(token.trim(), "The pasted token is used."));
listen("sign-out", async () => {
  await post("/auth/logout");
  hold("", "Signed out.");
});
element("filter").addEventListener("input", filter);
addEventListener("hashchange", openTarget);
if (matchMedia("(max-width: 52rem)").matches) element("contents").open = false;

fetch("openapi.json", { signal: AbortSignal.timeout(TIMEOUT) })
  .then((answer) => {
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  })
  .then((spec) => { show(spec); openTarget(); })
  .catch((error) => element("operations").append(h("p", { class: "problem" }, `The document cannot be read: ${error.message}`)));
