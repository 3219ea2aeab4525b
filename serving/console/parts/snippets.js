// The calls that the console makes, as one would make them oneself.

/** @typedef {{path: string, body?: unknown}} Call Without a body it is a GET. */

/** @param {string} text */
const forShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** @param {Call} call @param {boolean} hasKey */
export function asCurl({ path, body }, hasKey) {
  const parts = [`curl ${forShell(location.origin + path)}`];
  if (hasKey) parts.push(`-H "Authorization: Bearer $QUANTSERVE_SERVER__API_KEY"`);
  if (body !== undefined) parts.push(`-H 'Content-Type: application/json'`, `-d ${forShell(JSON.stringify(body))}`);
  return parts.join(" \\\n  ") + "\n";
}

/** @param {Call} call @param {boolean} hasKey */
export function asPython({ path, body }, hasKey) {
  const isStream = typeof body === "object" && body !== null && "stream" in body && body.stream === true;
  const headers = hasKey ? `\n    headers={"Authorization": f"Bearer {os.environ['QUANTSERVE_SERVER__API_KEY']}"},` : "";
  const json = body === undefined ? "" : `\n    json=${literal(body, "    ")},`;
  const given = `"${location.origin}${path}",${headers}${json}\n    timeout=300,`;
  const method = body === undefined ? "get" : "post";
  const imports = `${hasKey ? "import os\n\n" : ""}import httpx\n\n`;
  return isStream
    ? `${imports}with httpx.stream(\n    "POST",\n    ${given}\n) as answer:\n    answer.raise_for_status()\n    for line in answer.iter_lines():\n        print(line)\n`
    : `${imports}answer = httpx.${method}(\n    ${given}\n)\nanswer.raise_for_status()\nprint(answer.json())\n`;
}

/** A value as Python writes it. @param {unknown} value @param {string} indent @returns {string} */
function literal(value, indent) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  // Strings and numbers of JSON are Python's, too.
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const lines = Array.isArray(value)
    ? value.map((item) => `${inner}${literal(item, inner)},`)
    : Object.entries(value).map(([key, item]) => `${inner}${JSON.stringify(key)}: ${literal(item, inner)},`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return lines.length ? `${open}\n${lines.join("\n")}\n${indent}${close}` : open + close;
}
