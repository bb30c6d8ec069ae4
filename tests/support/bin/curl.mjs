#!/usr/bin/env node
// Stands in for curl where the machine has none, for the options that the documents use: -s -S -H NAME:VALUE -d BODY URL.
/** @type {Record<string, string>} */
const headers = {};
let body;
let url = "";
const words = process.argv.slice(2);
for (let word = words.shift(); word !== undefined; word = words.shift()) {
  if (word === "-H") {
    const header = words.shift() ?? "";
    const at = header.indexOf(":");
    headers[header.slice(0, at)] = header.slice(at + 1).trim();
  } else if (word === "-d") body = words.shift();
  else if (!word.startsWith("-")) url = word;
  else if (!/^-[sS]+$/.test(word)) throw new Error(`curl: ${word} is not one of the options that the documents use`);
}
const response = await fetch(url, body === undefined ? { headers } : { method: "POST", headers, body });
process.stdout.write(Buffer.from(await response.arrayBuffer()));
