/** Progress on standard error: one line that is written over on a terminal, a line every few seconds elsewhere. */
export class Progress {
  static readonly #EVERY_MS = 2000;
  readonly #terminal = process.stderr.isTTY === true;
  #shownTime = performance.now();
  #open = false;

  /** Shows how far it is: the part that is done, from 0 to 1, or undefined where nobody knows. */
  show(part: number | undefined, words: string): void {
    const now = performance.now();
    const text = part === undefined ? words : `${bar(part)} ${words}`;
    if (this.#terminal) {
      process.stderr.write(`\r\u001b[K${text.slice(0, (process.stderr.columns ?? 80) - 1)}`);
      this.#open = true;
    } else if (now - this.#shownTime >= Progress.#EVERY_MS) {
      process.stderr.write(`${text}\n`);
      this.#shownTime = now;
    }
  }

  /** Tells something that stays. */
  tell(text: string): void {
    this.end();
    process.stderr.write(`${text}\n`);
  }

  /** Leaves the line. */
  end(): void {
    if (this.#open) process.stderr.write("\r\u001b[K");
    this.#open = false;
  }
}

function bar(part: number): string {
  const done = Math.round(Math.min(1, part) * 30);
  return `[${"#".repeat(done)}${"-".repeat(30 - done)}] ${String(Math.floor(Math.min(1, part) * 100)).padStart(3)} %`;
}
