import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** The kinds of frames of HTTP/2 (RFC 9113, 6). */
export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

/** Flags of frames: the end of a stream or an acknowledgement share a bit. */
export const FLAG = { endStream: 1, ack: 1, endHeaders: 4 } as const;

/** One frame as it goes over the wire. */
export function frame(type: number, flags: number, stream: number, payload: Uint8Array = new Uint8Array()): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A whole number of 32 bits, big end first. */
export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** One setting of a SETTINGS frame. */
export function setting(id: number, value: number): Buffer {
  return Buffer.concat([Buffer.from([id >> 8, id & 255]), uint32(value)]);
}

/** A block of headers in HPACK's plainest form: every name and value literal, nothing indexed, so that nothing hangs on what came before. */
export function headerBlock(headers: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(headers.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([integer(bytes.length, 7), bytes]);
}

/** An integer of HPACK with a prefix of so many bits (RFC 7541, 5.1). */
function integer(value: number, bits: number): Buffer {
  const most = 2 ** bits - 1;
  if (value < most) return Buffer.from([value]);
  const bytes = [most];
  let rest = value - most;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return Buffer.from(bytes);
}

/** The headers of a POST to a path. */
export function requestHeaders(path: string, type = "application/json"): readonly (readonly [string, string])[] {
  return [
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "souk"],
    ["content-type", type],
    ["te", "trailers"],
  ];
}

/** What the server sent: one frame. */
export interface Received {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** One connection whose frames are written by hand. It answers nothing by itself, no PING and no SETTINGS. */
export class RawPeer {
  readonly socket: Socket;
  readonly received: Received[] = [];
  #rest = Buffer.alloc(0);
  closed = false;
  /** Told of each frame as it comes. */
  onFrame: (frame: Received) => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("close", () => {
      this.closed = true;
    });
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
  }

  /** Connects and says the preface, with these settings. */
  static async open(port: number, settings: Uint8Array = new Uint8Array()): Promise<RawPeer> {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    await once(socket, "connect");
    const peer = new RawPeer(socket);
    peer.write(Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(FRAME.settings, 0, 0, settings));
    return peer;
  }

  /** Writes bytes as they are. */
  write(...bytes: readonly Buffer[]): void {
    if (!this.closed) this.socket.write(Buffer.concat(bytes));
  }

  /** Writes the same again and again, as fast as the server takes it, until it closes the connection or the time is over. Answers how often. */
  async flood(bytes: (round: number) => Buffer, ms: number): Promise<number> {
    let rounds = 0;
    for (const endTime = Date.now() + ms; Date.now() < endTime && !this.closed; rounds++) {
      if (!this.socket.write(bytes(rounds))) await this.#drained();
      if (rounds % 16 === 0) await new Promise(setImmediate);
    }
    return rounds;
  }

  /** A unary call: its headers and body. */
  call(stream: number, path: string, body: Uint8Array = Buffer.from("{}"), type?: string): void {
    this.write(
      frame(FRAME.headers, FLAG.endHeaders, stream, headerBlock(requestHeaders(path, type))),
      frame(FRAME.data, FLAG.endStream, stream, body),
    );
  }

  /** The frames of a type that came, of one stream or of all. */
  of(type: number, stream?: number): readonly Received[] {
    return this.received.filter((each) => each.type === type && (stream === undefined || each.stream === stream));
  }

  /** Whether the server ended the connection within the time. */
  async isClosed(ms: number): Promise<boolean> {
    for (const endTime = Date.now() + ms; !this.closed && Date.now() < endTime; ) await sleep(10);
    return this.closed;
  }

  close(): void {
    this.socket.destroy();
  }

  /** Until what was written went, the connection ended, or a moment passed. */
  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.socket.off("drain", done).off("close", done);
        resolve();
      };
      const timer = setTimeout(done, 200);
      this.socket.once("drain", done).once("close", done);
    });
  }

  #take(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 9) {
      const length = this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < 9 + length) return;
      const taken = {
        type: this.#rest[3] as number,
        flags: this.#rest[4] as number,
        stream: this.#rest.readUInt32BE(5),
        payload: this.#rest.subarray(9, 9 + length),
      };
      this.#rest = this.#rest.subarray(9 + length);
      this.received.push(taken);
      this.onFrame(taken);
    }
  }
}
