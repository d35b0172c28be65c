"use strict";
// One request: what is sent, how it is said in curl, what comes back.

const TIMEOUT = 30000; // milliseconds
const SHOWN = 200000; // characters of an answer

function fill(path, values) {
  return path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(values.get(name) ?? ""));
}

function compose(method, path, parts) {
  const query = new URLSearchParams([...parts.query].filter(([, value]) => value !== "")).toString();
  const headers = new Map([["Accept", parts.accept]]);
  if (parts.body !== undefined) headers.set("Content-Type", parts.contentType);
  for (const [name, value] of parts.header) if (value !== "") headers.set(name, value);
  return { method: method.toUpperCase(), url: fill(path, parts.path) + (query ? `?${query}` : ""), headers, body: parts.body };
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// The token is named, not shown: a command is easily pasted somewhere.
function curl(request, withToken) {
  const words = [`curl -s -i${request.method === "GET" ? "" : ` -X ${request.method}`} ${quoted(location.origin + request.url)}`];
  if (withToken) words.push('-H "Authorization: Bearer $TOKEN"');
  for (const [name, value] of request.headers) words.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (request.body !== undefined) words.push(`--data-raw ${quoted(request.body)}`);
  return words.join(" \\\n     ");
}

async function send(request, token) {
  const headers = new Headers([...request.headers]);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const begun = performance.now();
  const answer = await fetch(request.url, {
    method: request.method, headers, body: request.body, cache: "no-store", redirect: "manual",
    signal: AbortSignal.timeout(TIMEOUT),
  });
  const text = await answer.text();
  return {
    ok: answer.ok, status: answer.status, words: answer.statusText, headers: [...answer.headers], text,
    type: answer.headers.get("Content-Type") ?? "", milliseconds: Math.round(performance.now() - begun),
  };
}

function readable(text, type) {
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}\n… (${text.length} characters in all)` : text;
  if (shown !== text) return shown;
  if (type.includes("json")) return indentedJson(text);
  if (type.includes("xml")) return indentedXml(text);
  return text;
}

// Neither is parsed, so that numbers and texts stay as they were sent.
function indentedJson(text) {
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  return text.replace(/("(?:[^"\\]|\\.)*")|([{[])\s*([}\]])|([{[])|([}\]])|(,)|(:)|\s+/g,
    (_, string, open, close, begin, end, comma, colon) => {
      if (string) return string;
      if (open) return open + close;
      if (begin) { depth += 1; return begin + line(); }
      if (end) { depth -= 1; return line() + end; }
      if (comma) return comma + line();
      return colon ? ": " : "";
    });
}

function indentedXml(text) {
  let depth = 0;
  let opened = false; // whether what came last was a start tag
  let afterText = false;
  return text.trim().replace(/(<[^>]+>)|([^<]+)/g, (_, tag, content) => {
    if (content) {
      if (!content.trim()) return "";
      afterText = true;
      return content;
    }
    if (tag.startsWith("</")) depth -= 1;
    const here = afterText || (tag.startsWith("</") && opened) ? tag : `\n${"  ".repeat(depth)}${tag}`;
    opened = !tag.startsWith("<?") && !tag.startsWith("</") && !tag.endsWith("/>");
    if (opened) depth += 1;
    afterText = false;
    return here;
  }).trim();
}
