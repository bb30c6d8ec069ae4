#!/usr/bin/env node
// Stands in for curl where the machine has none, for the options that the documents and tests use: -s -S -N -H NAME:VALUE -d BODY --data-binary @FILE
// -w FORMAT URL.
import { readFileSync } from "node:fs";

/** @type {Record<string, string>} */
const headers = {};
let body;
let format = "";
let url = "";
const words = process.argv.slice(2);
for (let word = words.shift(); word !== undefined; word = words.shift()) {
  if (word === "-H") {
    const header = words.shift() ?? "";
    const at = header.indexOf(":");
    headers[header.slice(0, at)] = header.slice(at + 1).trim();
  } else if (word === "-d") body = words.shift();
  else if (word === "--data-binary") body = readFileSync((words.shift() ?? "").slice(1));
  else if (word === "-w") format = words.shift() ?? "";
  else if (!word.startsWith("-")) url = word;
  else if (!/^-[sSN]+$/.test(word)) throw new Error(`curl: ${word} is not one of the options that the documents use`);
}
const response = await fetch(url, body === undefined ? { headers } : { method: "POST", headers, body });
for await (const chunk of response.body ?? []) process.stdout.write(chunk);
process.stdout.write(format.replaceAll("\\n", "\n").replace("%{http_code}", String(response.status)));
