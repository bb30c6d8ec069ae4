import type { Compilable, CompiledQuery } from "kysely";

/** The place of a value in a statement that is compiled before the value is known. */
class Hole {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/**
 * Compiles a statement once for all its values: building a statement costs more than running it. `build` gets, in the place of each value, something that may
 * only be handed to Kysely as a value; what the values are must not change the statement's text.
 */
export function compiled<V extends object, R>(build: (holes: V) => Compilable<R>): (values: V) => CompiledQuery<R> {
  let query: CompiledQuery<R> | undefined;
  return (values) => {
    query ??= build(new Proxy({}, { get: (_, name) => new Hole(String(name)) }) as V).compile();
    const parameters = query.parameters.map((each) => (each instanceof Hole ? values[each.name as keyof V] : each));
    return { ...query, parameters };
  };
}
