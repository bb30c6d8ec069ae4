import { inspect } from "node:util";

// Mocha loads this file with every run: a process that lives on after its tests says what keeps it, so that whoever reads a failed run can find the test.

/** How long a finished run may take to end before it says what it holds. Less than what tools/checks/mocha.ts waits. */
const SAY_AFTER_MS = 6_000;

interface Handle {
  constructor: { name: string };
  remotePort?: number;
  localPort?: number;
  pid?: number;
  spawnargs?: string[];
  fd?: number;
  address?(): unknown;
}

function describe(handle: Handle): string {
  const { remotePort, localPort, pid, spawnargs, fd } = handle;
  const address = typeof handle.address === "function" ? handle.address() : undefined;
  return `${handle.constructor.name} ${inspect({ remotePort, localPort, pid, spawnargs, fd, address }, { breakLength: Infinity })}`;
}

function sayWhatIsOpen(): void {
  const handles = (process as unknown as { _getActiveHandles(): Handle[] })._getActiveHandles();
  console.error("the tests are over; still open:", process.getActiveResourcesInfo().join(" "));
  for (const handle of handles) console.error(" ", describe(handle));
}

export const mochaHooks = {
  afterAll() {
    setTimeout(sayWhatIsOpen, SAY_AFTER_MS).unref();
  },
};
