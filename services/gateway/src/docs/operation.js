"use strict";
// One operation: what the document says of it, and a form to try it.

const AUDIENCES = {
  P: "anyone", A: "signed in", M: "managers, admins", X: "admins", S: "services, admins",
};
const NAMES = { "application/json": "JSON", "application/xml": "XML" };

function operationElement(spec, session, method, path, operation) {
  const body = h("div");
  const element = h("details", { class: "operation", id: operation.operationId },
    h("summary", {},
      h("span", { class: `method ${method}` }, method.toUpperCase()),
      h("span", { class: "path" }, path),
      h("span", { class: "what" }, ...inline(operation.summary)),
      h("span", { class: "badge" }, AUDIENCES[operation["x-audience"]])),
    body);
  element.addEventListener("toggle", () => {
    if (element.open && !body.hasChildNodes()) body.append(...details(spec, session, method, path, operation));
  });
  return element;
}

function details(spec, session, method, path, operation) {
  const parameters = operation.parameters ?? [];
  return [
    ...(operation.description ? prose(operation.description) : []),
    ...(parameters.length ? [h("h3", {}, "Parameters"), parameterList(parameters)] : []),
    ...(operation.requestBody ? [h("h3", {}, "Request"), ...requestParts(spec, operation.requestBody)] : []),
    h("h3", {}, "Answers"),
    answerList(spec, operation.responses),
    tryIt(spec, session, method, path, operation),
  ];
}

function parameterList(parameters) {
  return h("ul", { class: "schema" }, ...parameters.map((parameter) =>
    h("li", {},
      h("span", { class: "name" }, parameter.name), " ",
      h("span", { class: "dim" }, `in ${parameter.in}, ${typeOf(parameter.schema)}`),
      parameter.required ? h("span", { class: "needed" }, " required") : null,
      ...about({ ...parameter.schema, description: parameter.description }))));
}

function requestParts(spec, requestBody) {
  return [h("p", { class: "dim" }, ...inline(requestBody.description ?? "")), ...contentParts(spec, requestBody.content)];
}

// The schema once, though it stands under each media type, and its longest example in each.
function contentParts(spec, content) {
  const media = Object.entries(content ?? {});
  const typed = media.map(([, { schema }]) => schema).find((schema) => schema?.$ref);
  const examples = media.filter(([, { examples }]) => examples).map(([type, { examples }]) =>
    figure(NAMES[type] ?? type, exampleText(Object.values(examples).pop().value)));
  return [
    typed ? h("p", {}, h("span", { class: "name" }, referred(typed)), ...words(spec, typed)) : null,
    typed ? schemaList(spec, typed) : null,
    examples.length ? h("div", { class: "pair" }, ...examples) : null,
    typed || examples.length ? null : h("p", { class: "dim" }, media.map(([type]) => type).join(", ") || "No body."),
  ].filter(Boolean);
}

function words(spec, node) {
  const { description } = resolve(spec, node);
  return description ? [" – ", ...inline(description)] : [];
}

function exampleText(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function answerList(spec, responses) {
  const answers = Object.entries(responses).map(([status, node]) => [status, answerElement(spec, status, resolve(spec, node))]);
  const failures = answers.filter(([status]) => !(status < 400));
  return h("div", { class: "answers" },
    ...answers.filter(([status]) => status < 400).map(([, shown]) => shown),
    h("details", {}, h("summary", {}, `Failures: ${failures.map(([status]) => status).join(", ").replace("default", "any other")}`),
      h("div", { class: "inner" }, ...failures.map(([, shown]) => shown))));
}

function answerElement(spec, status, response) {
  const headers = Object.entries(response.headers ?? {}).map(([name, { description }]) =>
    h("p", {}, "Header ", h("span", { class: "name" }, name), ": ", ...inline(description)));
  return h("details", { open: status < 300 },
    h("summary", {},
      h("span", { class: `status ${status < 400 ? "good" : "bad"}` }, status === "default" ? "other" : status), " ",
      ...inline(response.description)),
    ...headers, ...contentParts(spec, response.content));
}

function tryIt(spec, session, method, path, operation) {
  const inputs = (operation.parameters ?? []).map((parameter) => ({ parameter, control: parameterInput(parameter) }));
  const content = operation.requestBody?.content;
  const accept = select(acceptable(operation.responses), "application/json");
  const sent = content && select(Object.keys(content).filter((type) => content[type].examples));
  const example = content && h("select");
  const text = content && h("textarea", { spellcheck: "false", autocomplete: "off" });
  const command = h("pre", { tabindex: "0", "aria-label": "The same as a curl command" });
  const result = { line: h("p", { role: "status" }), rest: h("div") };
  const button = h("button", { class: "main" }, "Send");

  const values = (place) => new Map(inputs.filter(({ parameter }) => parameter.in === place)
    .map(({ parameter, control }) => [parameter.name, control.value]));
  const request = () => compose(method, path, {
    path: values("path"), query: values("query"), header: values("header"), accept: accept.value,
    contentType: sent?.value, body: text?.value,
  });
  const needsToken = operation["x-audience"] !== "P";
  const refresh = () => { command.textContent = curl(request(), needsToken || session.token); };
  const chooseExample = () => {
    text.value = exampleText(content[sent.value].examples[example.value].value);
    text.rows = Math.min(text.value.split("\n").length + 1, 24);
    refresh();
  };
  const chooseMedia = () => {
    example.replaceChildren(...Object.keys(content[sent.value].examples).map((name) => h("option", {}, name)));
    chooseExample();
  };
  const form = h("form", {},
    inputs.length ? h("div", { class: "fields" }, ...inputs.map(({ parameter, control }) => labelled(parameter.name, control))) : null,
    h("div", { class: "fields" },
      content ? labelled("Send as", sent) : null,
      content ? labelled("Example", example) : null,
      labelled("Answer in", accept)),
    content ? labelled("Body", text) : null,
    h("div", { class: "row" }, button));
  sent?.addEventListener("change", chooseMedia);
  example?.addEventListener("change", chooseExample);
  form.addEventListener("input", refresh);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    refresh();
    await showResult(result, () => send(request(), session.token));
    button.disabled = false;
  });
  if (content) chooseMedia();
  else refresh();
  return h("section", { class: "try", "aria-label": "Try it" }, h("h3", {}, "Try it"), form, result.line, result.rest,
    h("h3", {}, "The same with curl"), h("p", { class: "dim" }, ...copier(command)), command);
}

function copier(command) {
  if (!navigator.clipboard) return ["Put the access token into the variable TOKEN."];
  const button = h("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(command.textContent);
    button.textContent = "Copied";
  });
  return [button, " Put the access token into the variable TOKEN."];
}

function parameterInput(parameter) {
  if (parameter.schema.enum) return select(["", ...parameter.schema.enum]);
  return h("input", { autocomplete: "off", spellcheck: "false", required: parameter.required });
}

function acceptable(responses) {
  const [, success] = Object.entries(responses).find(([status]) => status < 300);
  const types = Object.keys(success.content ?? {}).filter((type) => type !== "*/*");
  return types.length ? types : Object.keys(NAMES);
}

async function showResult({ line, rest }, ask) {
  line.className = "";
  line.replaceChildren("Sending …");
  rest.replaceChildren();
  try {
    const answer = await ask();
    line.replaceChildren(
      h("span", { class: `status ${answer.ok ? "good" : "bad"}` }, `${answer.status} ${answer.words}`),
      h("span", { class: "dim" }, ` in ${answer.milliseconds} ms, ${answer.text.length} characters`));
    rest.replaceChildren(
      h("details", {}, h("summary", {}, "Headers"),
        h("pre", { tabindex: "0", "aria-label": "The answer's headers" }, answer.headers.map((pair) => pair.join(": ")).join("\n"))),
      answer.text ? h("pre", { tabindex: "0", "aria-label": "The answer's body" }, readable(answer.text, answer.type)) : "");
  } catch (error) {
    line.className = "problem";
    line.replaceChildren(error.name === "TimeoutError" ? "No answer in 30 seconds." : `The request failed: ${error.message}`);
  }
}
