/** How many failures in a row open it. */
const FAILURES_MAX = 5;
/** How long nothing is tried then, in ms; after that one try decides. */
const PAUSE_MS = 1_000;

/** Stops asking a server that does not answer, so that its users do not wait for it each time. */
export class Breaker {
  #failures = 0;
  #pausedUntil = 0;

  /** Whether to try. After a pause only one may, until its outcome is known or another pause is over. */
  get allows(): boolean {
    if (this.#failures < FAILURES_MAX) {
      return true;
    }
    if (performance.now() < this.#pausedUntil) {
      return false;
    }
    this.#pausedUntil = performance.now() + PAUSE_MS;
    return true;
  }

  succeeded(): void {
    this.#failures = 0;
  }

  failed(): void {
    this.#failures++;
    if (this.#failures === FAILURES_MAX) {
      this.#pausedUntil = performance.now() + PAUSE_MS;
    }
  }
}
