import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DescMessage, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import { methodPath } from "../support/contract.ts";
import { codeOf, failed, type Outcome } from "./outcome.ts";
import type { Call, Way } from "./ways.ts";

/** The longest argument that is handed to a program; more goes through a file. */
const MAX_ARGUMENT_CHARS = 100_000;
const END_OF_STREAM = 2;

interface WireError {
  readonly code?: string;
  readonly message?: string;
  readonly details?: readonly { type: string; value: string }[];
}

/** curl, with nothing but what stands in the documents: JSON by POST, and reads by GET. */
export function curlWays(baseUrl: string, path: string, folder: string): Way[] {
  const run = (args: readonly string[], isEnough?: (output: Buffer) => boolean) => curl(args, path, isEnough);
  const withBody = (body: string): string[] => {
    if (body.length <= MAX_ARGUMENT_CHARS) return ["-d", body];
    const file = join(folder, "body.json");
    writeFileSync(file, body);
    return ["--data-binary", `@${file}`];
  };
  const unary = async ({ method, headers }: Call, url: string, body: readonly string[]): Promise<Outcome> => {
    const output = (await run([...headersOf(headers, "application/json"), ...body, "-w", "\n%{http_code}", url])).toString();
    const at = output.lastIndexOf("\n");
    const json = JSON.parse(output.slice(0, at));
    return output.slice(at + 1) === "200" ? { messages: [canonical(method.output, json)] } : wireFailure(json, []);
  };
  const jsonOf = ({ method, message }: Call) => JSON.stringify(toJson(method.input, message));
  return [
    {
      name: "curl, JSON",
      get: false,
      call(call) {
        const url = `${baseUrl}/${methodPath(call.method)}`;
        return call.method.methodKind === "unary" ? unary(call, url, withBody(jsonOf(call))) : streamed(call, url, run, folder);
      },
    },
    {
      name: "curl, JSON by GET",
      get: true,
      call(call) {
        const query = new URLSearchParams({ connect: "v1", encoding: "json", message: jsonOf(call) });
        return unary(call, `${baseUrl}/${methodPath(call.method)}?${query}`, []);
      },
    },
  ];
}

async function streamed(call: Call, url: string, run: Run, folder: string): Promise<Outcome> {
  const file = join(folder, "stream.bin");
  writeFileSync(file, encodeEnvelope(0, new TextEncoder().encode(JSON.stringify(toJson(call.method.input, call.message)))));
  const args = [...headersOf(call.headers, "application/connect+json"), "-N", "--data-binary", `@${file}`, url];
  const output = await run(args, (bytes) => frames(bytes).length >= call.take);
  const messages: JsonValue[] = [];
  for (const { flags, json } of frames(output)) {
    if ((flags & END_OF_STREAM) !== 0) {
      const { error } = json as { error?: WireError };
      return error === undefined ? { messages } : wireFailure(error, messages);
    }
    messages.push(canonical(call.method.output, json));
    if (messages.length === call.take) break;
  }
  return { messages };
}

/** The whole messages of a stream: a byte of flags, four of length, JSON. */
function frames(bytes: Buffer): { flags: number; json: JsonValue }[] {
  const found: { flags: number; json: JsonValue }[] = [];
  for (let at = 0; at + 5 <= bytes.length; ) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    if (end > bytes.length) break;
    found.push({ flags: bytes.readUInt8(at), json: JSON.parse(bytes.toString("utf8", at + 5, end)) });
    at = end;
  }
  return found;
}

type Run = (args: readonly string[], isEnough?: (output: Buffer) => boolean) => Promise<Buffer>;

/** Runs curl, and ends it when it has brought enough. */
async function curl(args: readonly string[], path: string, isEnough: (output: Buffer) => boolean = () => false): Promise<Buffer> {
  const child = spawn("curl", ["-sS", ...args], { env: { ...process.env, PATH: path }, stdio: ["ignore", "pipe", "pipe"] });
  let output = Buffer.alloc(0);
  let problem = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output = Buffer.concat([output, chunk]);
    if (isEnough(output)) child.kill();
  });
  child.stderr.on("data", (chunk) => {
    problem += chunk;
  });
  const [code] = await once(child, "close");
  if (code !== 0 && !isEnough(output)) throw new Error(`curl ended with ${code}: ${problem}`);
  return output;
}

function headersOf(headers: Readonly<Record<string, string>>, type: string): string[] {
  return Object.entries({ "content-type": type, ...headers }).flatMap(([name, value]) => ["-H", `${name}: ${value}`]);
}

function canonical(output: DescMessage, json: JsonValue): JsonValue {
  return toJson(output, fromJson(output, json));
}

function wireFailure({ code = "", message = "", details = [] }: WireError, messages: readonly JsonValue[]): Outcome {
  const sent = details.map(({ type, value }) => ({ type, value: Buffer.from(value, "base64") }));
  return failed(codeOf(code), message, sent, messages);
}
