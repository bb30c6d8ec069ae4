/** The last things a process has done, by their names: what it need not read again, and never believes without the database's word. */
export class Recent<T> {
  readonly #max: number;
  readonly #known = new Map<string, T>();

  /** Keeps `max` of them, and forgets the eldest. */
  constructor(max: number) {
    this.#max = max;
  }

  has(name: string): boolean {
    return this.#known.has(name);
  }

  get(name: string): T | undefined {
    return this.#known.get(name);
  }

  set(name: string, value: T): void {
    this.#known.delete(name);
    this.#known.set(name, value);
    if (this.#known.size > this.#max) {
      this.#known.delete(this.#known.keys().next().value as string);
    }
  }

  /** Gives it, and forgets it. */
  take(name: string): T | undefined {
    const value = this.#known.get(name);
    this.#known.delete(name);
    return value;
  }
}
