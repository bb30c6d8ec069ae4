import { type Contract, isExposed, type Method } from "./contract.ts";

/** The page of who may call whom. */
export function callGraph({ workloads, services }: Contract): string {
  const outside = workloads.filter(({ methods }) => methods.some(isExposed)).map(({ name }) => name);
  const lines = [
    "# Call graph",
    "",
    "<!-- Made from the proto by mesh/plugin: npm run generate. -->",
    "",
    "Who may call whom, by the policies of the methods. The mesh lets nothing else through, and each process checks it again.",
    "",
    "```mermaid",
    "flowchart LR",
    ...(outside.length > 0 ? [`  outside([outside]) --> ${outside.join(" & ")}`] : []),
    ...workloads.filter(({ calls }) => calls.length > 0).map(({ name, calls }) => `  ${name} --> ${calls.join(" & ")}`),
    "```",
    "",
    "| caller | may call |",
    "|---|---|",
    ...workloads.filter(({ calls }) => calls.length > 0).map(({ name }) => `| ${name} | ${callsOf(name, services).join("<br>")} |`),
    "",
    "From outside, through the gateway:",
    "",
    "| who | may call |",
    "|---|---|",
    ...OUTSIDE.map(
      ([who, admits]) => `| ${who} | ${namesOf(services.flatMap(({ methods }) => methods).filter(admits)).join("<br>")} |`,
    ),
  ];
  return `${lines.join("\n")}\n`;
}

const OUTSIDE: readonly [string, (method: Method) => boolean][] = [
  ["anyone", ({ access }) => access.anyone],
  ["a signed-in account", ({ access }) => access.account && !access.anyone],
  ["an operator only", ({ access }) => access.operator && !access.account && !access.anyone],
];

function callsOf(caller: string, services: Contract["services"]): string[] {
  return services.flatMap(({ methods, workloads }) => {
    const mine = methods.filter(({ access }) => access.services.includes(caller));
    const where = workloads.length > 1 ? ` of ${workloads.filter((name) => name !== caller).join(", ")}` : "";
    return namesOf(mine).map((name) => name + where);
  });
}

function namesOf(methods: readonly Method[]): string[] {
  return methods.map(({ name }) => `\`${name.split(".").at(-1)}\``);
}
