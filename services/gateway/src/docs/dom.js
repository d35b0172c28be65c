"use strict";
// Elements are made here and nowhere else: what comes from outside only ever becomes text.

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// The little of Markdown that the document uses: `code`, **strong**, and paragraphs.
function prose(text, tag = "p") {
  return text.split(/\n\s*\n/).map((paragraph) => h(tag, {}, ...inline(paragraph)));
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`")) return h("code", {}, part.slice(1, -1));
    if (part.startsWith("**")) return h("strong", {}, part.slice(2, -2));
    return part;
  });
}

function labelled(text, control) {
  return h("label", {}, text, control);
}

function select(options, chosen) {
  const element = h("select", {}, ...options.map((value) => h("option", { value }, value)));
  if (chosen !== undefined) element.value = chosen;
  return element;
}

function figure(caption, text) {
  return h("figure", {}, h("figcaption", {}, caption), h("pre", { tabindex: "0", "aria-label": caption }, text));
}
