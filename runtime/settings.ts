/** Where a process runs. Development has an embedded default for everything; production falls back to nothing. */
export const ENVIRONMENTS = ["development", "production"] as const;
/** Where a process runs. */
export type Environment = (typeof ENVIRONMENTS)[number];

/** One setting of a program. */
export interface Setting<T> {
  /** The variable of the environment; the flag is made from the setting's name. */
  readonly variable: string;
  /** What stands for the value in the help. A setting without is a switch: `--seed`, `--no-seed`. */
  readonly shown?: string;
  /** The default as one would write it. */
  readonly initial: string | Readonly<Record<Environment, string>>;
  readonly meaning: string;
  /** Whether it holds a password, which no message repeats. */
  readonly secret?: boolean;
  /** Reads what was written, or throws what is allowed, as the end of a sentence. */
  read(text: string): T;
}

/** The settings of a program by their names; `env` is one of them. The help, the types and the checks derive from this table. */
export type Settings = Readonly<Record<string, Setting<unknown>>> & { readonly env: Setting<Environment> };

/** What the settings of a table are read into. */
export type ValuesOf<S extends Readonly<Record<string, Setting<unknown>>>> = {
  -readonly [Name in keyof S]: ReturnType<S[Name]["read"]>;
};

/** A program as its settings see it. */
export interface Program<S extends Settings> {
  readonly settings: S;
  /** The first line of the help, and what stands between it and the settings. */
  readonly usage: string;
  /** Names of services that may be given behind the settings; none unless given. */
  readonly services?: readonly string[];
  /** Variables of other programs that begin like ours: no mistake, and not ours to read. */
  readonly others: ReadonlySet<string>;
}

/** A sentence, or several, that say which setting is wrong, why, and what is allowed. Printed as it is, without a stack. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** Where settings come from. */
export interface SettingSources {
  /** The arguments after the program's name. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** What was written. */
export interface Written<S extends Settings> {
  /** A value that is wrong is undefined here, whatever its type says, and named in `problems`. */
  readonly values: ValuesOf<S>;
  readonly services: readonly string[];
  /** What is wrong, a sentence each. */
  readonly problems: string[];
}

/** Reads flags and environment. A flag wins over a variable, a variable over the default. Answers the help's text when it is asked for. */
export function readSettings<S extends Settings>(
  program: Program<S>,
  sources: SettingSources,
): Written<S> | { readonly help: string } {
  const { settings } = program;
  const problems: string[] = [];
  const { flags, services, help } = readArguments(program, sources, problems);
  if (help) return { help: helpText(program) };
  checkVariables(program, sources.env, problems);
  const readOne = (name: string, environment: Environment) =>
    readSetting(name, settings[name] as Setting<unknown>, sources, flags, environment, problems);
  const environment = (readOne("env", "development") as Environment | undefined) ?? "development";
  const values: Record<string, unknown> = { env: environment };
  for (const name of Object.keys(settings)) {
    if (name !== "env") values[name] = readOne(name, environment);
  }
  return { values: values as ValuesOf<S>, services, problems };
}

type Flags = ReadonlyMap<string, { readonly text: string; readonly written: string }>;

function readArguments<S extends Settings>(program: Program<S>, { argv }: SettingSources, problems: string[]) {
  const { settings, services: allowed = [] } = program;
  const flags = new Map<string, { text: string; written: string }>();
  const services: string[] = [];
  const known = new Map(Object.keys(settings).map((name) => [flagOf(name), name]));
  const rest = [...argv];
  let help = false;
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--help" || word === "-h") {
      help = true;
      continue;
    }
    if (!word.startsWith("-")) {
      if (allowed.includes(word)) services.push(word);
      else problems.push(unknownWord(word, allowed));
      continue;
    }
    const [flag, attached] = split(word);
    const name = known.get(flag) ?? known.get(flag.replace(/^--no-/, "--"));
    const isSwitch = name !== undefined && settings[name]?.shown === undefined;
    if (name === undefined || (flag.startsWith("--no-") && (!isSwitch || attached !== undefined))) {
      problems.push(`There is no flag ${flag}.${suggestion(flag, [...known.keys(), "--help"])} --help lists all.`);
      continue;
    }
    const text = isSwitch ? (attached ?? String(!flag.startsWith("--no-"))) : (attached ?? rest.shift());
    if (text === undefined) problems.push(`${flag} needs a value: ${flag} ${settings[name]?.shown}.`);
    else flags.set(name, { text, written: flag });
  }
  return { flags: flags as Flags, services, help };
}

function unknownWord(word: string, allowed: readonly string[]): string {
  if (allowed.length === 0) return `"${word}" is no setting. --help lists all.`;
  return `There is no service "${word}".${suggestion(word, allowed)} There are: ${allowed.join(", ")}.`;
}

function split(word: string): [flag: string, attached: string | undefined] {
  const at = word.indexOf("=");
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

function checkVariables<S extends Settings>(
  { settings, others }: Program<S>,
  env: SettingSources["env"],
  problems: string[],
): void {
  const known = Object.values(settings).map(({ variable }) => variable);
  for (const name of Object.keys(env)) {
    if (name.startsWith("SOUK_") && !known.includes(name) && !others.has(name)) {
      problems.push(`There is no setting ${name}.${suggestion(name, known)} --help lists all.`);
    }
  }
}

function readSetting(
  name: string,
  setting: Setting<unknown>,
  { env }: SettingSources,
  flags: Flags,
  environment: Environment,
  problems: string[],
): unknown {
  const flag = flags.get(name);
  // To OpenTelemetry a variable that is empty is not set.
  const given = env[setting.variable] === "" && setting.variable.startsWith("OTEL_") ? undefined : env[setting.variable];
  const text = flag?.text ?? given ?? initialOf(setting, environment);
  try {
    return setting.read(text.trim());
  } catch (error) {
    const written = flag?.written ?? setting.variable;
    const shown = setting.secret ? `${written} is refused:` : `${written} is "${text.slice(0, 100)}", but`;
    problems.push(`${shown} ${(error as Error).message}.`);
    return undefined;
  }
}

function helpText<S extends Settings>({ settings, usage }: Program<S>): string {
  const rows = Object.entries(settings).map(([name, setting]) => {
    const flag =
      setting.shown === undefined ? `${flagOf(name)}, --no-${flagOf(name).slice(2)}` : `${flagOf(name)} ${setting.shown}`;
    return { flag, setting };
  });
  const width = Math.max(...rows.map(({ flag }) => flag.length));
  const lines = rows.map(
    ({ flag, setting }) =>
      `  ${flag.padEnd(width)}  ${setting.meaning}\n  ${" ".repeat(width)}  ${setting.variable}, ${initialText(setting)}`,
  );
  return [usage, "", ...lines, "", "A flag wins over a variable of the environment, a variable over the default.", ""].join("\n");
}

function initialText({ initial }: Setting<unknown>): string {
  if (typeof initial === "string") return initial === "" ? "not set by default" : `${initial} by default`;
  const { development, production } = initial;
  return `${development || "not set"} in development, ${production || "not set"} in production`;
}

function initialOf({ initial }: Setting<unknown>, environment: Environment): string {
  return typeof initial === "string" ? initial : initial[environment];
}

function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** " Did you mean …?" when something allowed is close to what was written. */
function suggestion(written: string, allowed: readonly string[]): string {
  const [closest] = allowed.map((word) => ({ word, distance: distanceOf(written, word) })).sort((a, b) => a.distance - b.distance);
  return closest !== undefined && closest.distance <= Math.max(2, written.length / 4) ? ` Did you mean ${closest.word}?` : "";
}

/** How many letters differ: the edit distance of Levenshtein. */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
