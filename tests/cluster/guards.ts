import assert from "node:assert/strict";
import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { SignJWT } from "jose";
import { policyOf } from "#runtime/policy.ts";
import { contractMethods, methodPath } from "../support/contract.ts";
import { type Guarded, ONCE, readPolicies } from "./guarded.ts";
import { REAL } from "./pods/manifests.ts";
import type { Answered, Asked, Kind } from "./pods/program.ts";
import { askGateway, bearer } from "./through-gateway.ts";

/** What the mesh's proxy in front of a workload says when no policy allows a call. */
export const REFUSED = "RBAC: access denied";

/** Whether the proxy before a workload let a call through; undefined where neither it nor the workload answered, as on a busy machine. */
function wasLetIn({ status, grpcStatus, message, from }: Answered, kind: Kind, workload: string): boolean | undefined {
  if (decodeURIComponent(message) === REFUSED) {
    assert.ok(kind === "grpc" ? grpcStatus === "7" : status === 403, `${status} ${grpcStatus}`);
    return false;
  }
  if (workload !== REAL) return from === undefined ? undefined : true;
  return status === 0 || /^(upstream|no healthy upstream)/.test(decodeURIComponent(message)) ? undefined : true;
}

const KINDS: readonly Kind[] = ["grpc", "post", "get"];

/** One call to the workload that is the real program, repeated where nobody answered: its own answer, or that of the proxy before it. */
export async function answerOfProgram(lab: Guarded, pod: string, path: string, headers: Asked["headers"]): Promise<Answered> {
  for (let attempt = 1; ; attempt++) {
    const [answer] = await lab.ask(pod, [{ url: lab.urlOf(REAL), paths: [path], kinds: ["post"], headers: headers ?? {} }]);
    if (answer !== undefined && wasLetIn(answer, "post", REAL) !== undefined) return answer;
    assert.ok(attempt < 5, `nobody answers: ${answer?.status} ${answer?.message}`);
  }
}

/** A method, and a workload that answers it. */
interface Target {
  readonly method: DescMethod;
  readonly workload: string;
}

/** Every method of the contract at every workload that answers it. Who answers is not what is checked, so it is read from what was generated. */
export async function targets(): Promise<Target[]> {
  const methods = await contractMethods();
  const { workloads } = readPolicies();
  const all = methods.flatMap((method) =>
    workloads
      .filter((workload) => workload.methods.some(({ name }) => name === methodPath(method)))
      .map(({ name }) => ({ method, workload: name })),
  );
  assert.ok(methods.length > 80 && methods.every((method) => all.some((target) => target.method === method)));
  return all;
}

/** Somebody who tries, the pod he does it from, and which methods the contract's policies let him call. */
interface Caller {
  readonly name: string;
  readonly pod: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether the program has somebody to know. */
  readonly isKnown: boolean;
  may(target: Target): boolean;
}

async function callersOf({ keys }: Pick<Guarded, "keys">): Promise<Caller[]> {
  const services = readPolicies().workloads.map(({ name }) => name);
  const gateway = (
    name: string,
    headers: Record<string, string>,
    may: (policy: ReturnType<typeof policyOf>) => boolean,
  ): Caller => ({
    name,
    pod: "as/gateway",
    headers,
    isKnown: "authorization" in headers,
    may: ({ method }) => may(policyOf(method)),
  });
  const nobody = (pod: string): Caller => ({ name: pod, pod, isKnown: false, may: () => false });
  return [
    ...services.map((service) => ({
      name: `service ${service}`,
      pod: `as/${service}`,
      isKnown: true,
      // A workload's calls to itself stay in the process.
      may: ({ method, workload }: Target) => policyOf(method).services.has(service) && service !== workload,
    })),
    gateway("nobody through the gateway", {}, ({ anyone }) => anyone),
    gateway("an account", await bearer(keys), ({ anyone, account }) => anyone || account),
    gateway(
      "an operator",
      await bearer(keys, { operator: true }),
      ({ anyone, account, operator }) => anyone || account || operator,
    ),
    nobody("as/default"),
    nobody("elsewhere/order"),
    nobody("elsewhere/search"),
  ];
}

/**
 * Each caller may call each method as the contract's policies say, over gRPC and Connect, with GET where the method changes nothing, and nothing else;
 * answers how many calls that were.
 */
export async function callGraphHolds(lab: Guarded, only: (caller: string) => boolean = () => true): Promise<number> {
  const all = await targets();
  const callers = (await callersOf(lab)).filter(({ name }) => only(name));
  const counts: number[] = [];
  const next = async () => {
    for (let caller = callers.shift(); caller !== undefined; caller = callers.shift())
      counts.push(await maysHold(lab, caller, all));
  };
  await Promise.all([next(), next(), next()]);
  return counts.reduce((sum, count) => sum + count, 0);
}

async function maysHold(lab: Guarded, caller: Caller, all: readonly Target[]): Promise<number> {
  const byWorkload = Map.groupBy(all, ({ workload }) => workload);
  const asked = [...byWorkload].map(([workload, targets]): Asked => {
    const paths = targets.map(({ method }) => `/${methodPath(method)}`);
    return { url: lab.urlOf(workload), paths: [...paths, "/metrics"], kinds: KINDS, headers: caller.headers ?? {} };
  });
  for (let attempt = 1; ; attempt++) {
    const { wrong, unclear } = judge(caller, byWorkload, await lab.ask(caller.pod, asked));
    assert.deepEqual(wrong, []);
    if (unclear.length === 0) return asked.reduce((sum, { paths }) => sum + paths.length * KINDS.length, 0);
    assert.ok(attempt < 5, `nobody answers: ${unclear.join(", ")}`);
  }
}

function judge(caller: Caller, byWorkload: ReadonlyMap<string, readonly Target[]>, answers: readonly Answered[]) {
  const wrong: string[] = [];
  const unclear: string[] = [];
  let next = 0;
  for (const [workload, targets] of byWorkload) {
    for (const target of [...targets, undefined]) {
      for (const kind of KINDS) {
        const answer = answers[next++] as Answered;
        const what = `call ${answer.path} of ${workload} (${kind}): ${answer.status} ${answer.message}`;
        if (target === undefined) {
          if (answer.from !== undefined || (answer.status === 200 && kind !== "grpc")) wrong.push(`${caller.name} may ${what}`);
          continue;
        }
        const may = caller.may(target) && (kind !== "get" || mayBeGot(target.method));
        const letIn = wasLetIn(answer, kind, workload);
        if (letIn === undefined) unclear.push(what);
        else if (letIn !== may) wrong.push(`${caller.name} ${may ? "may not" : "may"} ${what}`);
        else if (may && workload === REAL && caller.isKnown) assertServed(answer, caller);
      }
    }
  }
  assert.equal(next, answers.length);
  return { wrong, unclear };
}

function mayBeGot({ idempotency, methodKind }: DescMethod): boolean {
  return methodKind === "unary" && idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

/** The program checks again, by the same certificate: whom the mesh lets in it may not refuse for who he is. */
function assertServed({ path, status, grpcStatus, message }: Answered, { name }: Caller): void {
  const isUnknown = status === 401 || status === 403 || grpcStatus === "7" || grpcStatus === "16";
  assert.ok(!isUnknown, `the program does not know ${name} who calls ${path}: ${status} ${message}`);
}

/** Without TLS nobody is answered, by no workload. */
export async function plaintextIsRefused(lab: Guarded): Promise<void> {
  const urls = readPolicies().workloads.map(({ name }) => lab.urlOf(name));
  const answers = await lab.ask(
    "plain",
    urls.map((url) => ({ url, paths: ["/grpc.health.v1.Health/Check"], kinds: ["plain"] })),
  );
  assert.equal(answers.length, urls.length);
  for (const { status, message } of answers) assert.equal(status, 0, `answered without TLS: ${message}`);
  for (const { message } of answers) assert.match(message, /^cut off$|ECONNRESET/);
}

/** A workload reaches what it calls and what egress names for it, by name; nothing else, neither by name nor by address. */
export async function egressIsBounded(lab: Guarded): Promise<void> {
  const { workloads } = readPolicies();
  const at = (service: string) => `http://${service}.${lab.elsewhere}.svc.cluster.local:8080`;
  const once = (url: string): Asked => ({ url, paths: ["/lab.v1.Lab/Ask"], kinds: ["post"] });
  const reached = async (workload: string, urls: readonly string[]) => {
    const answers = await lab.ask(`workload/${workload}`, urls.map(once));
    return urls.filter((_, index) => answers[index]?.from === "listener");
  };
  const address = await lab.listenerUrl();
  const outside = [at("declared"), at("undeclared"), address];
  assert.deepEqual(await reached("order", outside), [at("declared")]);
  assert.deepEqual(await reached("account", outside), []);
  // Somebody without such bounds reaches all of it, so it is there.
  const free = await lab.ask("as/order", outside.map(once));
  assert.deepEqual(
    free.map(({ from }) => from),
    outside.map(() => "listener"),
  );
  // Of the others a workload reaches those that it calls: of them comes an answer or a refusal, of the rest none.
  const others = workloads.filter(({ name }) => name !== "order");
  const answers = await lab.ask(
    "workload/order",
    others.map(({ name, methods }) => ({ url: lab.urlOf(name), paths: [`/${methods[0]?.name}`], kinds: ["grpc"] })),
  );
  const heard = others.map(({ name }) => name).filter((_, index) => wasHeard(answers[index]));
  assert.deepEqual(heard, workloads.find(({ name }) => name === "order")?.calls);
}

/** Whether a workload or the proxy before it has answered. */
function wasHeard(answer: Answered | undefined): boolean {
  return answer?.grpcStatus === "0" || decodeURIComponent(answer?.message ?? "") === REFUSED || answer?.from !== undefined;
}

/** A method that nobody may repeat reaches its workload once, however often it fails; one that may be repeated does so as often as is declared. */
export async function onlyWhatIsSafeIsRepeated(lab: Guarded): Promise<void> {
  const get = "/marketplace.payment.v1.PaymentService/GetPayment";
  const count = async (path: string, kind: Kind) => {
    const headers = { "x-lab-fails": "always", "x-lab-id": crypto.randomUUID() };
    const [answer] = await lab.ask("as/order", [{ url: lab.urlOf("payment"), paths: [path], kinds: [kind], headers }]);
    assert.ok(answer?.from === "payment", `${answer?.status} ${answer?.message}`);
    return answer.count;
  };
  for (const kind of ["grpc", "post"] as const) {
    assert.equal(await count(`/${ONCE}`, kind), 1, `${ONCE} was tried again (${kind})`);
    assert.ok((await count(get, kind)) === attemptsOf(get), `${get} is tried as often as its policy says (${kind})`);
  }
}

function attemptsOf(path: string): number | undefined {
  return readPolicies()
    .workloads.flatMap(({ methods }) => methods)
    .find(({ name }) => `/${name}` === path)?.attempts;
}

/** A replica that fails every call of a kind is left out: afterwards hardly one call meets it. */
export async function failingReplicasAreLeftOut(lab: Guarded): Promise<void> {
  // Nobody repeats it: a retry would hide the failing replica.
  const headers = { "x-lab-fails": "half" };
  const calls = async (times: number) => {
    const asked: Asked = { url: lab.urlOf("search"), paths: [`/${ONCE}`], kinds: ["post"], headers, times };
    return (await lab.ask("as/ops", [asked])).filter(({ status }) => status !== 200).length;
  };
  await calls(60);
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  const failed = await calls(200);
  assert.ok(failed <= 2, `${failed} of 200 calls met the failing replica`);
}

/** A token counts at the gateway when it is of the issuer, for the audience, in time, and signed by the issuer's key in the issuer's way. */
export async function tokensAreChecked(lab: Guarded): Promise<void> {
  const own = "/marketplace.account.v1.AccountService/ListAddresses";
  const statusOf = async (headers: Record<string, string>) => (await askGateway(lab, own, { headers })).status;
  assert.equal(await statusOf(await bearer(lab.keys)), 200, "a good token is refused");
  for (const [name, token] of Object.entries(await badTokens(lab))) {
    assert.ok([401, 403].includes(await statusOf({ authorization: `Bearer ${token}` })), `${name} is taken`);
  }
  assert.equal(await statusOf({}), 403, "no token is needed");
}

/** Tokens that are wrong in one thing each. */
async function badTokens({ keys }: Guarded): Promise<Readonly<Record<string, string>>> {
  const claims = (change: { issuer?: string; audience?: string; expiry?: string } = {}) =>
    new SignJWT({})
      .setIssuer(change.issuer ?? "souk")
      .setAudience(change.audience ?? "souk")
      .setSubject("01900000-0000-7000-8000-0000000000a1")
      .setIssuedAt()
      .setExpirationTime(change.expiry ?? "1h");
  const es256 = { alg: "ES256", typ: "at+jwt" };
  const { privateKey, publicKey } = keys.accounts;
  const foreign = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const rsa = await crypto.subtle.generateKey(
    { name: "RSASSA-PKCS1-v1_5", modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" },
    true,
    ["sign", "verify"],
  );
  // Whoever takes a public key for a shared secret takes what anybody can sign.
  const spki = Buffer.from(await crypto.subtle.exportKey("spki", publicKey));
  const pem = `-----BEGIN PUBLIC KEY-----\n${spki.toString("base64").replace(/.{1,64}/g, "$&\n")}-----END PUBLIC KEY-----\n`;
  const good = await claims().setProtectedHeader(es256).sign(privateKey);
  const [, body = "", signature = ""] = good.split(".");
  const none = Buffer.from(JSON.stringify({ alg: "none", typ: "at+jwt" })).toString("base64url");
  return {
    "an expired token": await claims({ expiry: "-5m" }).setProtectedHeader(es256).sign(privateKey),
    "a token of another issuer": await claims({ issuer: "https://evil.example" }).setProtectedHeader(es256).sign(privateKey),
    "a token for another audience": await claims({ audience: "others" }).setProtectedHeader(es256).sign(privateKey),
    "a token by another key": await claims().setProtectedHeader(es256).sign(foreign.privateKey),
    "a token by RS256": await claims()
      .setProtectedHeader({ ...es256, alg: "RS256" })
      .sign(rsa.privateKey),
    "a token by HS256 with the public key": await claims()
      .setProtectedHeader({ ...es256, alg: "HS256" })
      .sign(Buffer.from(pem)),
    "a token without a signature": `${none}.${body}.`,
    "a token that says it needs none": `${none}.${body}.${signature}`,
    "a changed token": `${good.split(".")[0]}.${Buffer.from(Buffer.from(body, "base64url").toString().replace("a1", "a2")).toString("base64url")}.${signature}`,
  };
}

/** Nobody reaches a method from outside that the contract opens neither to anybody nor to accounts nor to operators: the gateway itself refuses it. */
export async function internalMethodsAreHidden(lab: Guarded): Promise<number> {
  const isInner = (method: DescMethod) => {
    const { anyone, account, operator } = policyOf(method);
    return !anyone && !account && !operator;
  };
  const inner = (await contractMethods()).filter(isInner).map((method) => `/${methodPath(method)}`);
  assert.ok(inner.length >= 10);
  const tokens = [{}, await bearer(lab.keys, { operator: true })];
  for (const path of [...inner, "/metrics", "/", `/${ONCE}`, "/grpc.health.v1.Health/Check", "/no.Such/Method"]) {
    for (const headers of tokens) {
      for (const method of ["POST", "GET"]) {
        const answer = await askGateway(lab, path, { method, headers });
        assert.equal(answer.status, 403, `${method} ${path} is answered from outside`);
        // A workload that refuses has been reached.
        assert.equal(answer.headers["x-envoy-upstream-service-time"], undefined, `${method} ${path} got past the gateway`);
      }
    }
  }
  return inner.length;
}
