import assert from "node:assert/strict";
import { requestFor, type Use, Victim } from "./attacked.ts";
import { FLAG, FRAME, frame, headerBlock, RawPeer, requestHeaders, setting, uint32 } from "./frames.ts";
import { GET_LISTING } from "./load.ts";

const MIB = 1024 * 1024;
const FRAMES_A_WRITE = 64;
/** How long a tolerated flood goes on, and one that has to be ended at most. */
const FLOOD_MS = 2000;
const MAX_FLOOD_MS = 20_000;
/** What an honest call takes on the wire. */
const BYTES_OF_CALL = 300;

const ask = (stream: number, flags: number = FLAG.endHeaders) =>
  frame(FRAME.headers, flags, stream, headerBlock(requestHeaders(GET_LISTING)));
const id = (round: number) => 2 * round + 1;
const nothing = Buffer.alloc(8);
const LARGE = "x".repeat(15_000);
/** A header of 3.9 KB that goes into the table of the connection, and 4,000 times one byte that means it again. */
const bomb = (round: number) =>
  Buffer.concat([
    headerBlock(requestHeaders(GET_LISTING)),
    ...(round > 0 ? [] : [Buffer.from([0x40, 1, 0x78, 0x7f, 0xbd, 0x1d]), Buffer.alloc(3900, "a")]),
    Buffer.alloc(4000, 0x80 + 62),
  ]);

interface Flood {
  /** The frames of a round. */
  readonly bytes: (round: number) => Buffer;
  /** Whether the server's answers, acknowledgements among them, stay unread. */
  readonly unread?: boolean;
  /** Whether the connection may live on, because its bytes cost no more than those of honest calls. */
  readonly tolerated?: boolean;
}

const FLOODS: Readonly<Record<string, Flood>> = {
  "calls that are given up at once (rapid reset)": {
    bytes: (round) => Buffer.concat([ask(id(round)), frame(FRAME.reset, 0, id(round), uint32(8))]),
  },
  "calls that are given up when they have begun": {
    bytes: (round) =>
      Buffer.concat([
        ask(id(round)),
        frame(FRAME.data, FLAG.endStream, id(round), requestFor()),
        frame(FRAME.reset, 0, id(round), uint32(8)),
      ]),
  },
  "calls that make the server give up": {
    bytes: (round) => Buffer.concat([ask(id(round)), frame(FRAME.windowUpdate, 0, id(round), uint32(0))]),
  },
  "more calls at once than were allowed": { bytes: (round) => ask(id(round)) },
  "headers without end (CONTINUATION)": {
    bytes: (round) => (round === 0 ? ask(1, 0) : frame(FRAME.continuation, 0, 1, headerBlock([[`x-${round}`, "x"]]))),
  },
  "empty CONTINUATION frames": { bytes: (round) => (round === 0 ? ask(1, 0) : frame(FRAME.continuation, 0, 1)) },
  "PING frames": { bytes: () => frame(FRAME.ping, 0, 0, nothing) },
  "PING frames whose answers stay unread": { bytes: () => frame(FRAME.ping, 0, 0, nothing), unread: true },
  "answers to PINGs that nobody sent": { bytes: () => frame(FRAME.ping, FLAG.ack, 0, nothing) },
  "SETTINGS frames": { bytes: (round) => frame(FRAME.settings, 0, 0, setting(4, round % 1000)) },
  "SETTINGS frames whose answers stay unread": { bytes: () => frame(FRAME.settings, 0, 0), unread: true },
  "empty DATA frames": { bytes: (round) => (round === 0 ? ask(1) : frame(FRAME.data, 0, 1)) },
  "DATA frames of one byte": {
    bytes: (round) => (round === 0 ? ask(1) : frame(FRAME.data, 0, 1, Buffer.from("x"))),
    tolerated: true,
  },
  "PRIORITY frames": { bytes: (round) => frame(FRAME.priority, 0, id(round % 1000), Buffer.concat([uint32(0), Buffer.from([1])])) },
  "frames of an unknown type": { bytes: () => frame(0xbb, 0, 0, nothing) },
  "WINDOW_UPDATE frames": { bytes: () => frame(FRAME.windowUpdate, 0, 0, uint32(1)), tolerated: true },
  "headers that are small on the way and large behind it (HPACK)": {
    bytes: (round) => frame(FRAME.headers, FLAG.endHeaders | FLAG.endStream, id(round), bomb(round)),
    tolerated: true,
  },
  "headers larger than allowed": {
    bytes: (round) =>
      Buffer.concat([
        frame(FRAME.headers, FLAG.endStream, id(round), headerBlock([...requestHeaders(GET_LISTING), ["x-large", LARGE]])),
        frame(FRAME.continuation, FLAG.endHeaders, id(round), headerBlock([["x-more", LARGE]])),
      ]),
  },
};

describe("a flood on one connection is survived:", function () {
  this.timeout(60_000);
  let victim: Victim;
  let cpuMsOfCall: number;
  before(async () => {
    victim = await Victim.start();
    const first = await victim.use();
    for (let calls = 0; calls < 300; calls++) await victim.call();
    cpuMsOfCall = ((await victim.use()).cpuMs - first.cpuMs) / 300;
  });
  after(() => victim.stop());

  for (const [name, { bytes, unread = false, tolerated = false }] of Object.entries(FLOODS)) {
    it(name, async () => {
      const first = await victim.use();
      const peer = await RawPeer.open(victim.port);
      if (unread) peer.socket.pause();
      const write = (round: number) =>
        Buffer.concat(Array.from({ length: FRAMES_A_WRITE }, (_, index) => bytes(round * FRAMES_A_WRITE + index)));
      let during: Use | undefined;
      const calls = await victim.callDuring(async () => {
        await peer.flood(write, tolerated ? FLOOD_MS : MAX_FLOOD_MS);
        during = await victim.use();
      });
      const last = await victim.use();
      peer.close();
      for (const endTime = Date.now() + 5000; (await victim.use()).open > 0; )
        assert.ok(Date.now() < endTime, `${(await victim.use()).open} calls are still counted`);
      assert.ok(calls > 0);
      assert.equal(last.uncaught, 0);
      for (const use of [during as Use, last]) assert.ok(use.rss - first.rss < 64 * MIB, `${(use.rss - first.rss) / MIB} MiB`);
      const cost = (last.cpuMs - first.cpuMs) / cpuMsOfCall - calls;
      if (peer.closed && !tolerated) {
        // Before it is ended, it costs no more than honest clients' calls do in a moment.
        assert.ok(cost < 3000, `as much as ${Math.round(cost)} calls`);
      } else {
        assert.ok(tolerated, "the connection lives on");
        const worth = peer.socket.bytesWritten / BYTES_OF_CALL;
        assert.ok(cost < 20 * worth, `${Math.round(cost)} calls' work for the bytes of ${Math.round(worth)}`);
      }
    });
  }
});
