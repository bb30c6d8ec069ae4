// Load for one server: HTTP/2 by hand, because a client library would take more of the machine than what is measured.

import { connect, type Socket } from "node:net";

/** What is sent again and again. */
export interface Shot {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** A header that is another one each time, and is therefore remembered by nobody; `next` gives its value. */
  readonly fresh?: { readonly name: string; next(): string };
}

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const DATA = 0;
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const END_STREAM = 1;
const END_HEADERS = 4;
const ACK = 1;
/** Entries of HPACK's static table; what is remembered comes after them. */
const STATIC_ENTRIES = 61;
const WINDOW = 0x3fff_ffff;

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  bytes.set(payload, 9);
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** A string of HPACK without Huffman's code (RFC 7541, 5.2). */
function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest >>= 7) length.push((rest & 127) | 128);
  length.push(rest);
  return Buffer.concat([Buffer.from(length), bytes]);
}

/** One connection with so many calls at once. Headers are sent once and then referred to, as every client does. */
export class LoadConnection {
  readonly #socket: Socket;
  readonly #shot: Shot;
  readonly #known: Buffer;
  readonly #body: Buffer;
  #nextStream = 1;
  #rest: Buffer = Buffer.alloc(0);
  #answerBytes = 0;
  #expectedBytes = 0;
  #toSend = 0;
  #toCome = 0;
  #done: () => void = () => {};
  #failed: (error: Error) => void = () => {};

  private constructor(socket: Socket, shot: Shot) {
    this.#socket = socket;
    this.#shot = shot;
    const names = Object.keys(shot.headers);
    this.#known = Buffer.from(names.map((_, index) => 0x80 | (STATIC_ENTRIES + names.length - index)));
    this.#body = shot.body;
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("error", (error) => this.#failed(error));
    socket.on("close", () => this.#failed(new Error("The server closed the connection.")));
    const settings = Buffer.concat([Buffer.from([0, 4]), uint32(WINDOW)]);
    socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0, settings), frame(8, 0, 0, uint32(WINDOW))]));
  }

  static open(port: number, shot: Shot): Promise<LoadConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true }, () => resolve(new LoadConnection(socket, shot)));
      socket.once("error", reject);
    });
  }

  /** Makes so many calls, `atOnce` under way. Rejects when one is refused. */
  run(calls: number, atOnce: number): Promise<void> {
    this.#toSend = calls;
    this.#toCome = calls;
    return new Promise((resolve, reject) => {
      this.#done = resolve;
      this.#failed = reject;
      this.#send(Math.min(atOnce, calls));
    });
  }

  close(): void {
    this.#failed = () => {};
    this.#socket.destroy();
  }

  #send(calls: number): void {
    const frames: Buffer[] = [];
    for (let call = 0; call < calls && this.#toSend > 0; call++, this.#toSend--) {
      const stream = this.#nextStream;
      this.#nextStream += 2;
      const block = stream === 1 ? this.#first() : this.#known;
      const { fresh } = this.#shot;
      const own = fresh === undefined ? [] : [Buffer.from([0]), text(fresh.name), text(fresh.next())];
      frames.push(frame(HEADERS, END_HEADERS, stream, own.length === 0 ? block : Buffer.concat([block, ...own])));
      frames.push(frame(DATA, END_STREAM, stream, this.#body));
    }
    this.#socket.write(Buffer.concat(frames));
  }

  #first(): Buffer {
    return Buffer.concat(
      Object.entries(this.#shot.headers).flatMap(([name, value]) => [Buffer.from([0x40]), text(name), text(value)]),
    );
  }

  #take(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    let ended = 0;
    while (at + 9 <= bytes.length) {
      const length = bytes.readUIntBE(at, 3);
      const end = at + 9 + length;
      if (end > bytes.length) break;
      const type = bytes[at + 3] as number;
      const flags = bytes[at + 4] as number;
      if (type === DATA) this.#answerBytes += length;
      if ((type === DATA || type === HEADERS) && (flags & END_STREAM) !== 0) ended++;
      else this.#control(type, flags, bytes.subarray(at + 9, end));
      at = end;
    }
    this.#rest = bytes.subarray(at);
    if (ended === 0) return;
    this.#toCome -= ended;
    this.#send(ended);
    if (this.#toCome === 0) this.#done();
  }

  #control(type: number, flags: number, payload: Buffer): void {
    if (type === SETTINGS && flags === 0) this.#socket.write(frame(SETTINGS, ACK, 0, Buffer.alloc(0)));
    if (type === PING && flags === 0) this.#socket.write(frame(PING, ACK, 0, payload));
    if (type === RST_STREAM || type === GOAWAY) this.#failed(new Error(`The server refused a call: frame ${type}.`));
  }

  /** Whether all answers had as many bytes as the first: an error has others. */
  allAnswered(calls: number): boolean {
    const each = this.#answerBytes / calls;
    this.#answerBytes = 0;
    if (this.#expectedBytes === 0) this.#expectedBytes = each;
    return each > 0 && each === this.#expectedBytes;
  }
}
