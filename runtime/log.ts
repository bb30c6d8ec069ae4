import { type DestinationStream, type Logger, pino } from "pino";

/** Where a process writes what it did. Lines carry ids and reasons, never bodies, names, addresses or card data. */
export type Log = Logger;

/** The levels of a log, the most talkative first. */
export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
/** A level of a log. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** How lines are written: one JSON object each, for machines, or one readable line each. */
export const LOG_FORMATS = ["json", "line"] as const;
/** A format of a log. */
export type LogFormat = (typeof LOG_FORMATS)[number];

/** Fields that are never written, whatever somebody puts in a line. */
const REDACTED = ["authorization", "cookie", "token", "password", "secret", "address", "email"];

/** What a log is opened with. */
export interface LogOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  readonly destination?: DestinationStream;
  /** What each line says of where it was written, such as the active trace. */
  readonly fields?: (() => object) | undefined;
}

/** Opens a log. Lines go to standard error, so that standard output stays for what a command answers. */
export function createLog(options: LogOptions): Log {
  const { level, format, fields } = options;
  const destination = options.destination ?? standardError(format);
  const stream = format === "json" ? destination : lineStream(destination);
  const base = { level, base: null, timestamp: timestamps(), ...(fields && { mixin: fields }) };
  const log = pino(
    {
      ...base,
      redact: { paths: REDACTED.flatMap((name) => [name, `*.${name}`]), censor: "[redacted]" },
      serializers: { err: describeError },
    },
    stream,
  );
  return Object.assign(log, { [PLAIN]: pino(base, stream) });
}

/** Where a log keeps the one that looks for nothing to hide. */
const PLAIN = Symbol("plain");

/**
 * The same log for lines whose fields hold nothing to hide by the way they are made, such as the line of each call: looking for secrets in every one of them
 * costs more than writing it.
 */
export function plainLog(log: Log): Log {
  return (log as { [PLAIN]?: Log })[PLAIN] ?? log;
}

/** The time in front of each line; written out once a millisecond at most. */
function timestamps(): () => string {
  let lastTime = 0;
  let text = "";
  return () => {
    const time = Date.now();
    if (time !== lastTime) {
      lastTime = time;
      text = `,"time":"${new Date(time).toISOString()}"`;
    }
    return text;
  };
}

/** How much is gathered before it is written, in bytes, and how long it may wait, in ms. */
const GATHERED_BYTES = 8192;
const GATHERED_MS = 100;
/** From this level on (warn) a line is written at once, and with it all before it. */
const URGENT_LEVEL = 40;

/**
 * Standard error. A system call for each line would cost a call as much as its validation, so lines for machines are gathered; warnings, errors and the end of
 * the process write what there is. Only a process that is killed, or the machine with it, loses its last 100 ms.
 */
function standardError(format: LogFormat): DestinationStream {
  if (format === "line") return pino.destination({ dest: 2, sync: true });
  const file = pino.destination({ dest: 2, sync: true, minLength: GATHERED_BYTES, periodicFlush: GATHERED_MS });
  process.once("exit", () => file.flushSync());
  return {
    // Has pino tell the level of each line.
    [Symbol.for("pino.metadata")]: true,
    lastLevel: 0,
    write(line: string) {
      file.write(line);
      if (this.lastLevel >= URGENT_LEVEL) file.flushSync();
    },
  } as DestinationStream & { lastLevel: number };
}

/** A log that writes nothing. */
export function silentLog(): Log {
  return pino({ level: "silent" });
}

/** What is known of an error, its causes included, at most five deep. */
function describeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) {
    return { message: String(error).slice(0, MAX_MESSAGE) };
  }
  const code = (error as { code?: unknown }).code;
  return {
    type: error.name,
    message: withoutValues(error.message).slice(0, MAX_MESSAGE),
    ...(code === undefined ? {} : { code }),
    stack: stackOf(error),
    ...(error.cause === undefined || depth >= 5 ? {} : { cause: describeError(error.cause, depth + 1) }),
  };
}

const MAX_MESSAGE = 500;

/** A database driver repeats the whole statement with its values, which may be names and addresses; what went wrong stands at the end. */
function withoutValues(message: string): string {
  const statement = /^\s*(insert into|update|delete from|select)\b/i.exec(message);
  if (statement === null) {
    return message;
  }
  const end = message.lastIndexOf(" - ");
  return `${statement[1]} …${end < 0 ? "" : message.slice(end)}`;
}

/** Only the frames: the first lines of a stack repeat the message. */
function stackOf(error: Error): string {
  const frames = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  return frames.slice(0, 20).join("\n");
}

/** Turns JSON lines into lines for a person: time, level, what, and the rest as `name=value`. */
function lineStream(destination: DestinationStream): DestinationStream {
  return {
    write(json) {
      destination.write(`${readable(JSON.parse(json) as Record<string, unknown>)}\n`);
    },
  };
}

function readable(line: Record<string, unknown>): string {
  const { time, level, msg, method, err, ...rest } = line;
  const words = [String(time).slice(11, 23), (pino.levels.labels[Number(level)] ?? "").padEnd(5)];
  for (const word of [msg, typeof method === "string" ? method.replace(/^marketplace\./, "") : method]) {
    if (word !== undefined) words.push(String(word));
  }
  for (const [name, value] of Object.entries(rest)) {
    words.push(`${name}=${typeof value === "object" ? JSON.stringify(value) : String(value)}`);
  }
  return words.join(" ") + (err === undefined ? "" : `\n${readableError(err as DescribedError)}`);
}

interface DescribedError {
  type?: string;
  message: string;
  stack?: string;
  cause?: DescribedError;
}

function readableError(error: DescribedError): string {
  const cause = error.cause === undefined ? "" : `\n  caused by ${readableError(error.cause).trimStart()}`;
  return `  ${error.type ?? "Error"}: ${error.message}\n${error.stack ?? ""}${cause}`;
}
