// InfluxDB's own Flux compiler, made for browsers as WebAssembly, answering over stdin and stdout: a line of JSON
// each. Asked {extern, query}, it says whether both together are valid, and gives the syntax tree that it has read.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { join } from "node:path";

const folder = process.argv[2];
const wasm = new WebAssembly.Module(readFileSync(join(folder, "flux-lsp-browser_bg.wasm")));
// The package expects a bundler: its code takes the compiled module from an import, and memory from that at once.
const glue = readFileSync(join(folder, "flux-lsp-browser_bg.js"), "utf8")
  .replace(/^import \* as wasm from .*$/m, "let wasm; export function useWasm(exports) { wasm = exports; }")
  .replace(/^let (cached\w+Memory0);$/gm, (_, name) => `let ${name} = new ${name.slice(6, -7)}Array();`)
  .replace(/^cached\w+Memory0 = .*$/gm, "");
const flux = await import("data:text/javascript;base64," + Buffer.from(glue).toString("base64"));
const module = WebAssembly.Module.imports(wasm)[0].module;
flux.useWasm(new WebAssembly.Instance(wasm, { [module]: flux }).exports);

// Errors of syntax stand within the tree.
const isBroken = (node) =>
  node !== null && typeof node === "object" && (node.errors?.length > 0 || Object.values(node).some(isBroken));

function judge({ extern, query }) {
  try {
    const parsed = flux.parse(query);
    const both = flux.Flux.from_ast({ type: "Package", path: "main", package: "main", files: [extern, parsed] });
    return { valid: !isBroken(parsed) && both.is_valid(), ast: both.ast(), query: parsed };
  } catch (error) {
    return { valid: false, error: String(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(judge(JSON.parse(line))) + "\n");
}
