"use strict";
// JSON Schemas as nested lists.

const ANY_TEXT = "^([\t\n\r -\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]*)$"; // what XML can carry: not worth showing
const LARGEST = Number.MAX_VALUE;
const LIMITS = [
  ["minLength", "maxLength", " characters"],
  ["minItems", "maxItems", " items"],
  ["minProperties", "maxProperties", " entries"],
  ["minimum", "maximum", ""],
];

function resolve(spec, node) {
  if (!node || !node.$ref) return node;
  const { $ref, ...beside } = node;
  const target = $ref.slice(2).split("/").reduce((found, key) => found[key], spec);
  return { ...target, ...beside };
}

function referred(node) {
  return node.$ref ? node.$ref.split("/").pop() : undefined;
}

function typeOf(schema) {
  if (schema.$ref) return referred(schema);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.type === "object" && !schema.properties) return `map of ${typeOf(schema.additionalProperties ?? {})}`;
  return schema.format ? `${schema.type} (${schema.format})` : (schema.type ?? "anything");
}

function limitsOf(schema) {
  const told = LIMITS.map(([least, most, unit]) => range(schema[least], schema[most], unit)).filter(Boolean);
  const given = schema.default;
  if (given !== undefined && (typeof given !== "object" || Object.keys(given).length)) told.push(`default ${JSON.stringify(given)}`);
  if (schema.pattern && schema.pattern !== ANY_TEXT && !schema.description) told.push(`pattern ${schema.pattern}`);
  return told.join(", ");
}

function range(least, most, unit) {
  const [from, to] = [least, most].map((bound) => (Math.abs(bound) < LARGEST ? bound : undefined));
  if (from !== undefined && to !== undefined) return `${from} to ${to}${unit}`;
  if (from !== undefined) return `at least ${from}${unit}`;
  return to === undefined ? "" : `at most ${to}${unit}`;
}

function schemaList(spec, node) {
  const schema = resolve(spec, node);
  const needed = new Set(schema.required ?? []);
  const items = Object.entries(schema.properties ?? {}).map(([name, part]) =>
    h("li", {},
      h("span", { class: "name" }, name), " ",
      h("span", { class: "dim" }, typeOf(part)),
      needed.has(name) ? h("span", { class: "needed" }, " required") : null,
      ...about(part),
      inside(spec, part)));
  return h("ul", { class: "schema" }, ...items);
}

function about(schema) {
  const description = schema.$ref ? "" : (schema.description ?? "");
  const words = [description, limitsOf(schema)].filter(Boolean).join("; ");
  return words ? [h("div", { class: "dim" }, ...inline(words))] : [];
}

function inside(spec, schema) {
  const inner = schema.type === "array" ? schema.items : schema;
  return inner.$ref ? schemaList(spec, inner) : null;
}
