// `npm run test:charts`: renders the charts with the value sets of tests/charts, and checks what comes out.

import { createHash } from "node:crypto";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { askServer } from "./charts/api-server.ts";
import { checkIssuerKey } from "./charts/secrets.ts";
import { type Finished, root, run } from "./checks/run.ts";
import { runCommand, Usage } from "./checks/usage.ts";

const FOLDER = "tests/charts";
/** The namespace that value sets are rendered for. */
const NAMESPACE = "shop";

const HELP = `npm run test:charts -- [options]

Renders each chart with each of its value sets (${FOLDER}/values/<chart>-<set>.yaml) and compares with ${FOLDER}/golden; runs helm lint; tries values
that must be refused. Needs helm on the PATH.

  --update        writes what is rendered to ${FOLDER}/golden
  --schemas DIR   also checks against the JSON schemas of a cluster, with kubeconform -strict
  --istioctl      also runs istioctl analyze -A
  --api-server    only asks the API server of the current kubeconfig whether it would take ${FOLDER}/golden; needs kubectl, no helm`;

/** Where a chart is, by the name that its value sets begin with. */
const CHARTS: Readonly<Record<string, string>> = { mesh: "mesh", souk: "helm/souk" };

/** A rendered chart that is kept: which chart, and with which values. */
export interface ValueSet {
  readonly name: string;
  readonly chart: string;
  readonly values: string;
  readonly golden: string;
}

/** All value sets there are. */
export function valueSets(): ValueSet[] {
  return globSync(`${FOLDER}/values/*.yaml`, { cwd: root })
    .sort()
    .map((values) => {
      const name = path.basename(values, ".yaml");
      const chart = CHARTS[name.split("-", 1)[0] ?? ""];
      if (chart === undefined) throw new Usage(`${values} names none of the charts ${Object.keys(CHARTS).join(", ")}`);
      return { name, chart, values, golden: `${FOLDER}/golden/${name}.yaml` };
    });
}

/** A hash of all that a rendering depends on: the chart's files and the values. The golden's first line has it, so that one made before them is noticed without helm. */
export function sourceHash({ chart, values }: Pick<ValueSet, "chart" | "values">): string {
  const folders = chart === "mesh" ? [chart] : [chart, "mesh"];
  const files = folders.flatMap((folder) =>
    globSync(`${folder}/{Chart.yaml,values.yaml,values.schema.json,templates/**,generated/**,rules/**}`, { cwd: root }),
  );
  const hash = createHash("sha256");
  for (const file of [...files.filter((each) => statSync(path.join(root, each)).isFile()).sort(), values]) {
    hash.update(`${file}\n${readFileSync(path.join(root, file))}`);
  }
  return hash.digest("hex").slice(0, 16);
}

/** The first line of a golden. */
export function heading(set: ValueSet): string {
  return `# ${set.values} rendered from the sources ${sourceHash(set)}; made by: npm run test:charts -- --update`;
}

interface Outcome {
  readonly what: string;
  readonly problem: string | undefined;
}

const ofExit = (what: string, { code, output }: Finished): Outcome => ({ what, problem: code === 0 ? undefined : output });

async function render({ chart, values }: Pick<ValueSet, "chart" | "values">, more: readonly string[] = []): Promise<Finished> {
  const { code, output } = await run("helm", ["template", "souk", chart, "--namespace", NAMESPACE, "--values", values, ...more]);
  return { code, output: withoutNotice(output) };
}

/** Helm says of every link that it follows it; the one to the mesh chart is meant. */
function withoutNotice(output: string): string {
  return output.replace(/^walk\.go:.* found symbolic link in path: .*\n/gm, "");
}

async function checkSet(set: ValueSet, options: Options, folder: string): Promise<Outcome[]> {
  const rendered = await render(set);
  if (rendered.code !== 0) return [ofExit(`${set.name} is rendered`, rendered)];
  const text = `${heading(set)}\n${rendered.output}`;
  const golden = path.join(root, set.golden);
  if (options.update) writeFileSync(golden, text);
  const same = existsSync(golden) && readFileSync(golden, "utf8") === text;
  const file = path.join(folder, `${set.name}.yaml`);
  writeFileSync(file, text);
  return [
    {
      what: `${set.name} is what ${set.golden} says`,
      problem: same ? undefined : "it is not; look at the difference after: npm run test:charts -- --update",
    },
    ofExit(
      `${set.name} passes helm lint`,
      await run("helm", ["lint", set.chart, "--strict", "--namespace", NAMESPACE, "--values", set.values]),
    ),
    ...(options.schemas === undefined
      ? []
      : [ofExit(`${set.name} fits the cluster's schemas`, await conform(file, options.schemas))]),
    ...(options.istioctl && !set.name.endsWith("waypoint")
      ? [ofExit(`${set.name} passes istioctl analyze -A`, await analyze(file))]
      : []),
  ];
}

/** Kinds of operators that a cluster may lack, as ours does: their schemas are not known to it. */
const FOREIGN = ["PrometheusRule", "ServiceMonitor", "PodMonitor", "ExternalSecret"];

function conform(file: string, schemas: string): Promise<Finished> {
  const location = `${schemas}/{{ .ResourceKind }}{{ .KindSuffix }}.json`;
  return run("kubeconform", ["-strict", "-summary", "-skip", FOREIGN.join(","), "-schema-location", location, file]);
}

/**
 * What the analyzer warns of and we mean: rates need an EnvoyFilter, because Istio has no resource for them; a TCP host without an address gets one from
 * the mesh.
 */
const MEANT = ["IST0133=EnvoyFilter *", "IST0134=ServiceEntry *"];

function analyze(file: string): Promise<Finished> {
  const suppressed = MEANT.flatMap((each) => ["--suppress", each]);
  const files = [file, `${FOLDER}/surroundings.yaml`];
  return run("istioctl", ["analyze", "-A", "--use-kube=false", "--failure-threshold", "Warning", ...suppressed, ...files]);
}

/** The values that the Terraform module installs the chart with: rendered, but not kept. */
async function checkTerraform(options: Options, folder: string): Promise<Outcome[]> {
  const rendered = await render({ chart: CHARTS.souk as string, values: "tests/terraform/values.yaml" });
  const file = path.join(folder, "terraform.yaml");
  writeFileSync(file, rendered.output);
  const outcomes = [ofExit("the Terraform module's values are rendered", rendered)];
  if (options.schemas !== undefined)
    outcomes.push(ofExit("the Terraform module's release fits the cluster's schemas", await conform(file, options.schemas)));
  if (options.istioctl) outcomes.push(ofExit("the Terraform module's release passes istioctl analyze -A", await analyze(file)));
  return outcomes;
}

/** Values that must be refused: the set they are added to, the value, and what the refusal names. */
const REFUSALS: readonly [set: string, value: string, says: RegExp][] = [
  ["mesh-production", "gatway.enabled=true", /'gatway' not allowed/],
  ["mesh-production", "names.prot=1", /'\/names'.*'prot' not allowed/],
  ["mesh-production", "egress.mysql.protocol=HTTP", /egress\.mysql is MySQL with the protocol HTTP.*must be TCP/],
  ["mesh-production", "gateway.tlsSecret=", /gateway\.tlsSecret is empty/],
  ["mesh-production", "gateway.plainHttp=serve", /tokens would travel in the clear/],
  ["mesh-production", "faults.enabled=true", /faults\.enabled is true and environment is production/],
  ["mesh-production", "issuer.url=http://id.example", /is an https:\/\/ URL/],
  ["mesh-production", "issuer.url=", /issuer\.url is empty: name who signs/],
  ["mesh-production", "issuer.jwksUri=", /issuer\.jwksUri and issuer\.jwks are empty/],
  ["souk-default", "mesh.issuer.jwks=souk", /issuer\.jwks is no JWKS: give the issuer's public keys/],
  ["souk-default", 'mesh.issuer.jwks=\\{"keys": [\\{"kty": "EC"\\, "d": "x"\\}]\\}', /issuer\.jwks has a private key in it/],
  ["mesh-production", "methods.marketplace\\.order\\.v1\\.OrderService/PlaceOrder.attempts=6", /PlaceOrder\/attempts.*maximum.*6/],
  ["mesh-production", "methods.marketplace\\.order\\.v1\\.OrderService/PlaceOrder.timeout=2h", /PlaceOrder\/timeout/],
  ["mesh-production", "methods.marketplace\\.order\\.v1\\.OrderService/WatchOrder.timeout=9s", /WatchOrder.*'timeout' not allowed/],
  ["mesh-production", "methods.marketplace\\.order\\.v1\\.OrderService/NoSuch.attempts=1", /NoSuch' not allowed/],
  ["mesh-production", "canaries.web.weight=10", /'web' not allowed/],
  ["mesh-production", "switches.other=true", /'other' not allowed/],
  ["souk-production", "image.repository=", /image\.repository is empty/],
  ["souk-production", "image.tag=latest", /image\.tag is latest/],
  ["souk-default", "secrets.database=", /secrets\.database is empty: name the secret/],
  ["souk-default", "secrets.redis=", /secrets\.redis is empty: name the secret/],
  ["souk-default", "secrets.keys=", /secrets\.keys is empty: name the secret/],
  ["souk-default", "environment=production", /testing\.processor or testing\.issuer is true and environment is production/],
  ["souk-production", "processor.url=", /processor\.url is empty: say where/],
  ["souk-production", "mesh.issuer.url=", /mesh\.issuer\.url is no https:\/\/ URL.*name the OpenID provider/],
  ["souk-everything", "processor.url=https://processor.example", /name two processors/],
  ["souk-everything", "tests.gatewayAuthority.configMap=authorities", /gatewayAuthority\.secret name two places/],
  ["souk-everything", "tests.gatewayAuthority.file=ca.pem", /'file' not allowed/],
  ["souk-everything", "tests.gatewayAuthority.key=", /gatewayAuthority\/key/],
  ["souk-production", "testing.processor=true", /environment is production: they are for trying things out/],
  ["souk-production", "services.order.replica=3", /'replica' not allowed/],
  ["souk-production", "services.web.replicas=3", /'web' not allowed/],
  ["souk-production", "services.order.env.SOUK_ENV=development", /services\/order\/env.*SOUK_ENV/],
  ["souk-production", "defaults.labels.track=canary", /defaults\/labels.*track/],
  ["souk-production", "redisHosts[0]=redis://redis", /redisHosts\/0/],
  ["souk-production", "mesh.gateway.host=x", /'host' not allowed/],
  ["souk-production", "mesh.gateway.tlsSecret=", /gateway\.tlsSecret is empty/],
  ["souk-production", "mesh.faults.enabled=true", /faults\.enabled is true and environment is production/],
  ["souk-everything", "externalSecrets.store.name=", /externalSecrets\.store\.name is empty/],
  ["souk-production", "mesh.standalone=true", /mesh\.standalone is true/],
];

function valueSet(name: string): ValueSet {
  const set = valueSets().find((each) => each.name === name);
  if (set === undefined) throw new Usage(`there is no value set ${name}`);
  return set;
}

async function checkRefusal([name, value, says]: (typeof REFUSALS)[number]): Promise<Outcome> {
  const set = valueSet(name);
  const { code, output } = await render(set, ["--set", value]);
  const what = `${name} with ${value} is refused`;
  if (code === 0) return { what, problem: "it is rendered" };
  return { what, problem: says.test(output) ? undefined : `but the refusal does not say ${says}:\n${output}` };
}

interface Options {
  readonly update: boolean;
  readonly schemas: string | undefined;
  readonly istioctl: boolean;
}

/** Counts outcomes and prints each. */
function counter() {
  let [passed, failed] = [0, 0];
  return {
    report({ what, problem }: Outcome) {
      if (problem === undefined) passed++;
      else failed++;
      console.log(problem === undefined ? `ok    ${what}` : `FAIL  ${what}\n${problem.trim()}`);
    },
    end() {
      console.log(`${passed} passed, ${failed} failed`);
      process.exitCode = failed > 0 ? 1 : 0;
    },
  };
}

async function askForAll(): Promise<void> {
  const { report, end } = counter();
  const goldens = valueSets().map(({ golden }) => golden);
  await askServer(goldens, NAMESPACE, report);
  end();
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      update: { type: "boolean", default: false },
      schemas: { type: "string" },
      istioctl: { type: "boolean", default: false },
      "api-server": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  if (values["api-server"]) return askForAll();
  if ((await run("helm", ["version"])).code !== 0)
    throw new Usage("helm 3 is not on the PATH: https://helm.sh/docs/intro/install/ says how to install it");
  const options: Options = { update: values.update, schemas: values.schemas, istioctl: values.istioctl };
  const folder = mkdtempSync(path.join(tmpdir(), "souk-charts-"));
  const { report, end } = counter();
  try {
    for (const set of valueSets()) for (const outcome of await checkSet(set, options, folder)) report(outcome);
    for (const outcome of await checkTerraform(options, folder)) report(outcome);
    const byDefault = valueSet("souk-default");
    for (const outcome of await checkIssuerKey(NAMESPACE, (more) => render(byDefault, more))) report(outcome);
    for (const refusal of REFUSALS) report(await checkRefusal(refusal));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  end();
}

if (import.meta.main) await runCommand("npm run test:charts", main);
