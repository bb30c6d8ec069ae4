import type { IncomingMessage, ServerResponse } from "node:http";
import { constants, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { Log } from "#runtime/log.ts";

/** The bounds of a connection over its life. */
export interface ConnectionLimits {
  /** How old a connection becomes before it is told to go, give or take a tenth, in ms; 0 is as old as it likes. */
  readonly maxConnectionAgeMs: number;
  /** How long a connection that was told to go may take to finish its calls, in ms. */
  readonly connectionGraceMs: number;
  /** How long an answer may wait for a peer that does not take it, in ms. */
  readonly answerTimeoutMs: number;
  /** Answers of all connections together that wait for their peers, in bytes; beyond, the largest are dropped. */
  readonly maxUntakenBytes: number;
  /** Requests at once on one connection of HTTP/1.1. Only who does not wait for answers has more than one. */
  readonly maxPipelined: number;
}

/** The bounds of a connection unless told otherwise. */
export const DEFAULT_CONNECTION_LIMITS: ConnectionLimits = {
  maxConnectionAgeMs: 30 * 60_000,
  connectionGraceMs: 30_000,
  answerTimeoutMs: 30_000,
  maxUntakenBytes: 256 * 1024 * 1024,
  maxPipelined: 16,
};

/** The connections of a port from their first request to their end. */
export interface Connections {
  /** Takes care of a connection of HTTP/2. */
  addSession(session: ServerHttp2Session, socket: Socket): void;
  addStream(stream: ServerHttp2Stream): void;
  /** Takes care of a connection of HTTP/1.1. */
  addSocket(socket: Socket): void;
  /** Takes note of a request over HTTP/1.1. Answers false when its connection was ended because it asks for too much at once. */
  addRequest(request: IncomingMessage, response: ServerResponse): boolean;
  /** From now on answers over HTTP/1.1 ask their clients not to come back on the same connection. */
  announce(): void;
  /** Tells all connections to go, those of HTTP/1.1 with their next answers, and those to come at once. */
  retire(): void;
  /** Ends what is left, with the calls on it. */
  cut(): void;
  /** Stops looking after them, when all are gone. */
  close(): void;
}

/** A connection of HTTP/2. */
interface Live {
  readonly session: ServerHttp2Session;
  readonly socket: Socket;
  readonly retireTime: number;
  /** When it is cut; undefined as long as it was not told to go. */
  cutTime?: number;
}

/** An answer that its peer has not taken yet. */
interface Untaken {
  /** Another number as soon as the peer has taken some of it. */
  readonly mark: number;
  readonly sinceTime: number;
}

const SWEEP_MS = 1000;
/** How long a peer may take to answer the PING that follows the notice. */
const NOTICE_MS = 1000;

/**
 * GOAWAY with the highest of all stream ids: begin nothing here any more, whatever you have begun is served (RFC 9113, 6.8). Node's own `goaway` and
 * `close` leave no way to say that: after either, streams that cross it on the way are never answered. So this frame is written between those
 * of Node, which writes only whole ones.
 */
const NOTICE = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

/**
 * Looks after connections: those that are old or idle are told to go without losing a call, and peers that do not take their answers hold neither
 * memory nor connections.
 */
export function createConnections(limits: ConnectionLimits, log: Log): Connections {
  const lives = new Map<ServerHttp2Session, Live>();
  const streams = new Set<ServerHttp2Stream>();
  const sockets = new Map<Socket, { readonly retireTime: number; open: number }>();
  const responses = new Set<ServerResponse>();
  const untaken = new Map<ServerHttp2Stream | Socket, Untaken>();
  let announced = false;
  let retired = false;

  const retireTime = () => {
    const { maxConnectionAgeMs: age } = limits;
    return age === 0 ? Infinity : performance.now() + age * (0.9 + Math.random() * 0.2);
  };
  const retireLive = (live: Live, graceMs: number) => {
    if (live.cutTime !== undefined || live.session.closed || live.session.destroyed) return;
    live.cutTime = performance.now() + graceMs;
    sayGoodbye(live);
  };
  const cutLive = ({ session, socket }: Live) => {
    session.destroy();
    // Destroyed, a session still waits until its peer has read what was written.
    socket.destroy();
  };
  const forgetStream = function (this: ServerHttp2Stream) {
    streams.delete(this);
    untaken.delete(this);
  };

  const sweep = () => {
    const now = performance.now();
    for (const live of lives.values()) {
      if (now >= live.retireTime) retireLive(live, limits.connectionGraceMs);
      if (live.cutTime !== undefined && now >= live.cutTime) cutLive(live);
    }
    for (const stream of streams) {
      // Answered before its body had come: nobody reads the rest.
      if (stream.writableFinished && !stream.readableEnded) stream.close(constants.NGHTTP2_NO_ERROR);
    }
    dropUntaken(now);
  };

  const dropUntaken = (now: number) => {
    let bytes = 0;
    const waiting: (ServerHttp2Stream | Socket)[] = [];
    for (const peer of [...streams, ...sockets.keys(), ...[...lives.values()].map(({ socket }) => socket)]) {
      const before = untaken.get(peer);
      const pending = peer.destroyed ? 0 : pendingOf(peer);
      // A stream has one answer; a connection has one after the other, often of the same length.
      const mark = "session" in peer ? pending : peer.bytesWritten - pending;
      bytes += pending;
      if (pending === 0) untaken.delete(peer);
      else if (before?.mark === mark) {
        if (now - before.sinceTime >= limits.answerTimeoutMs) drop(peer);
        else waiting.push(peer);
      } else {
        // An answer that is complete has this long as a whole; a stream's only has to get on.
        const sinceTime = before !== undefined && peer.writableEnded ? before.sinceTime : now;
        untaken.set(peer, { mark, sinceTime });
      }
    }
    if (bytes <= limits.maxUntakenBytes) return;
    for (const peer of waiting.sort((a, b) => pendingOf(b) - pendingOf(a))) {
      bytes -= pendingOf(peer);
      drop(peer);
      if (bytes <= limits.maxUntakenBytes) return;
    }
  };

  const drop = (peer: ServerHttp2Stream | Socket) => {
    log.debug({ bytes: pendingOf(peer) }, "an answer was not taken in time");
    untaken.delete(peer);
    if ("session" in peer) peer.close(constants.NGHTTP2_CANCEL);
    else peer.destroy();
  };

  const timer = setInterval(sweep, sweepMs(limits));
  timer.unref();
  return {
    addSession(session, socket) {
      const live: Live = { session, socket, retireTime: retireTime() };
      lives.set(session, live);
      socket.once("close", () => {
        lives.delete(session);
        untaken.delete(socket);
      });
      session.on("timeout", () => retireLive(live, limits.connectionGraceMs));
      if (retired) retireLive(live, Infinity);
    },
    addStream(stream) {
      streams.add(stream);
      stream.on("close", forgetStream);
    },
    addSocket(socket) {
      sockets.set(socket, { retireTime: retireTime(), open: 0 });
      socket.once("close", () => {
        sockets.delete(socket);
        untaken.delete(socket);
      });
    },
    addRequest({ socket }, response) {
      const live = sockets.get(socket);
      if (live === undefined) return false;
      if (++live.open > limits.maxPipelined) {
        socket.destroy();
        return false;
      }
      responses.add(response);
      response.once("close", () => {
        live.open--;
        responses.delete(response);
      });
      if (announced || performance.now() >= live.retireTime) response.setHeader("connection", "close");
      return true;
    },
    announce() {
      announced = true;
      for (const response of responses) if (!response.headersSent) response.setHeader("connection", "close");
    },
    retire() {
      retired = true;
      this.announce();
      for (const live of lives.values()) retireLive(live, Infinity);
    },
    cut() {
      for (const live of lives.values()) cutLive(live);
    },
    close: () => clearInterval(timer),
  };
}

/** The bytes that wait for a peer. What an HTTP/2 connection has written itself only the handle below its socket knows. */
function pendingOf(peer: ServerHttp2Stream | Socket): number {
  const { _handle: handle } = peer as { readonly _handle?: { readonly writeQueueSize?: number } | null };
  return Math.max(peer.writableLength, "session" in peer ? 0 : (handle?.writeQueueSize ?? 0));
}

/** Often enough for the shortest of the times. */
function sweepMs({ maxConnectionAgeMs, connectionGraceMs, answerTimeoutMs }: ConnectionLimits): number {
  return Math.max(10, Math.min(SWEEP_MS, connectionGraceMs / 2, answerTimeoutMs / 2, maxConnectionAgeMs / 10 || SWEEP_MS));
}

/**
 * Gives notice, waits until the peer must have read it, and only then closes: calls that were on their way when it was given are served. Closing waits for
 * calls in flight.
 */
function sayGoodbye({ session, socket }: Live): void {
  const close = () => {
    clearTimeout(timer);
    session.off("localSettings", giveNotice);
    if (!session.destroyed) session.close();
  };
  const giveNotice = () => {
    socket.write(NOTICE);
    if (!session.ping(close)) close();
  };
  const timer = setTimeout(close, NOTICE_MS);
  // Our SETTINGS have to come first.
  if (session.pendingSettingsAck) session.once("localSettings", giveNotice);
  else giveNotice();
}
