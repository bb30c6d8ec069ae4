import assert from "node:assert/strict";
import { type Config, ConfigError, readConfig } from "#runtime/config.ts";

const services = ["catalog", "order"];

function read(argv: string[] = [], env: Record<string, string> = {}): Config {
  const result = readConfig({ argv, env, services });
  assert.ok("config" in result);
  return result.config;
}

function refused(argv: string[], env: Record<string, string> = {}): string {
  try {
    read(argv, env);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message;
  }
  return assert.fail("It was accepted.");
}

describe("the configuration", () => {
  it("has a default for everything in development", () => {
    const config = read();
    assert.equal(config.env, "development");
    assert.equal(config.port, 8080);
    assert.equal(config.host, "127.0.0.1");
    assert.match(config.dataDir, /\/\.souk$/);
    assert.equal(config.seed, true);
    assert.equal(config.logFormat, "line");
    assert.equal(config.publicUrl, undefined);
    assert.deepEqual(config.corsOrigins, ["localhost"]);
    assert.deepEqual(config.services, services);
  });

  it("lets a flag win over a variable, and a variable over the default", () => {
    assert.equal(read([], { SOUK_PORT: "81" }).port, 81);
    assert.equal(read(["--port", "82"], { SOUK_PORT: "81" }).port, 82);
    assert.equal(read(["--port=83"]).port, 83);
  });

  it("reads switches and lists", () => {
    assert.equal(read(["--no-seed"]).seed, false);
    assert.equal(read(["--seed"], { SOUK_SEED: "false" }).seed, true);
    assert.deepEqual(read(["--cors-origins", "https://a.example, https://b.example"]).corsOrigins, [
      "https://a.example",
      "https://b.example",
    ]);
  });

  it("refuses a wrong value with a sentence that says which, why, and what is allowed", () => {
    assert.equal(refused(["--port", "99999"]), '--port is "99999", but it must be a whole number from 0 to 65535.');
    assert.equal(refused([], { SOUK_SEED: "maybe" }), 'SOUK_SEED is "maybe", but it must be true or false.');
    assert.match(refused(["--log-level", "loud"]), /it must be one of trace, debug/);
    assert.match(refused(["--cors-origins", "shop.example"]), /origin of a web address/);
    assert.match(refused(["--host", "nowhere"]), /IP address/);
    assert.match(refused(["--port"]), /--port needs a value: --port NUMBER/);
  });

  it("reads the standard variables of OpenTelemetry", () => {
    const config = read([], {
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318/",
      OTEL_EXPORTER_OTLP_HEADERS: "x-api-key=a%2Cb, x-tenant = shop",
      OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=staging",
      OTEL_SERVICE_NAME: "souk-order",
      OTEL_TRACES_SAMPLER_ARG: "0.25",
    });
    assert.equal(config.otlpEndpoint, "http://collector:4318");
    assert.deepEqual(config.otlpHeaders, { "x-api-key": "a,b", "x-tenant": "shop" });
    assert.deepEqual(config.otelResource, { "deployment.environment.name": "staging" });
    assert.deepEqual([config.otelServiceName, config.tracesRatio, config.metrics], ["souk-order", 0.25, true]);
    assert.equal(read().otlpEndpoint, undefined);
    const empty = read([], { OTEL_TRACES_SAMPLER_ARG: "", OTEL_EXPORTER_OTLP_TIMEOUT: "", OTEL_EXPORTER_OTLP_PROTOCOL: "" });
    assert.deepEqual([empty.tracesRatio, empty.otlpTimeoutMs], [1, 10_000]);
    read([], { OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf", OTEL_TRACES_SAMPLER: "parentbased_traceidratio" });
  });

  it("refuses telemetry that could only be guessed, and repeats no header of it", () => {
    assert.match(refused([], { OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4317" }), /address of a collector, such as http:/);
    assert.match(refused([], { OTEL_EXPORTER_OTLP_ENDPOINT: "http://a:b@collector" }), /address of a collector/);
    for (const wrong of ["2", "-1", "half", " ", "1.5"]) {
      assert.match(refused([], { OTEL_TRACES_SAMPLER_ARG: wrong }), /it must be a number from 0 to 1/);
    }
    assert.match(
      refused([], { OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }),
      /there is only http\/protobuf: a collector takes it at port 4318/,
    );
    assert.match(refused([], { OTEL_TRACES_SAMPLER: "always_on" }), /there is only parentbased_traceidratio/);
    assert.match(refused([], { OTEL_RESOURCE_ATTRIBUTES: "staging" }), /it must be like name=value/);
    assert.match(refused([], { OTEL_SERVICE_NAME: "a\nb" }), /letters, digits, dots and hyphens/);
    assert.match(refused([], { OTEL_EXPORTER_OTLP_TIMEOUT: "1" }), /a whole number from 100 to 60000/);
    const headers = refused([], { OTEL_EXPORTER_OTLP_HEADERS: "x-api-key=s3cret%" });
    assert.match(headers, /OTEL_EXPORTER_OTLP_HEADERS is refused: it must be like name=value/);
    assert.doesNotMatch(headers, /s3cret/);
  });

  it("reads how the mesh names services and the gateway, and refuses what names nobody", () => {
    const services = "spiffe://cluster.local/ns/shop/sa/souk-{service}";
    const gateway = "spiffe://cluster.local/ns/istio-ingress/sa/gateway";
    const config = read([], { SOUK_MESH_IDENTITY: services, SOUK_MESH_GATEWAY: gateway });
    assert.deepEqual([config.meshIdentity, config.meshGateway], [services, gateway]);
    assert.equal(read().meshIdentity, undefined);
    for (const wrong of [
      "spiffe://cluster.local/ns/shop/sa/souk-order",
      "souk-{service}",
      `${services}{service}`,
      "spiffe://{service}",
    ])
      assert.match(refused([], { SOUK_MESH_IDENTITY: wrong }), /it must be like spiffe:/, wrong);
    assert.match(refused([], { SOUK_MESH_GATEWAY: gateway }), /set SOUK_MESH_IDENTITY, too/);
  });

  it("takes production stores for asked for when a database is named", () => {
    const url = "mariadb://souk_{service}:secret@db.example:3306/souk_{service}";
    assert.equal(read().stores, "embedded");
    assert.equal(read(["--stores=production"]).stores, "production");
    const config = read([], { SOUK_DATABASE_URL: url });
    assert.deepEqual([config.stores, config.databaseUrl], ["production", url]);
  });

  it("refuses a database that services would share, and never repeats its password", () => {
    for (const url of ["mariadb://u:secret@host/souk", "postgres://u:secret@host/{service}", "mysql://u:secret@host", "secret"]) {
      const sentence = refused([], { SOUK_DATABASE_URL: url });
      assert.match(sentence, /^SOUK_DATABASE_URL is refused: .*\{service\}/);
      assert.ok(!sentence.includes("secret"), sentence);
    }
    const redis = refused([], { SOUK_REDIS_URL: "http://:secret@host" });
    assert.equal(redis, "SOUK_REDIS_URL is refused: it must be like redis://:password@host:6379.");
  });

  it("refuses unknown flags, variables and services, and suggests what was meant", () => {
    assert.match(refused(["--prot", "1"]), /There is no flag --prot\. Did you mean --port\?/);
    assert.match(refused([], { SOUK_PROT: "1" }), /There is no setting SOUK_PROT\. Did you mean SOUK_PORT\?/);
    assert.match(refused(["catalogue"]), /There is no service "catalogue"\. Did you mean catalog\?/);
    assert.match(refused(["--no-port"]), /There is no flag --no-port/);
    assert.match(refused(["--zebra"]), /There is no flag --zebra\. --help/);
  });

  it("names everything that is wrong at once", () => {
    assert.equal(refused(["--port", "x", "--seed=7"]).split("\n").length, 2);
  });

  it("leaves the variables of the tools alone", () => {
    read([], { SOUK_TOKEN: "t", PATH: "/bin" });
  });

  it("refuses a partial start without Redis, since events in one process reach nobody else", () => {
    assert.match(refused(["order"]), /Only order would run here.*Redis.*add catalog\./s);
    assert.deepEqual(read(["order", "catalog"]).services, services);
  });

  describe("a partial start", () => {
    const whole = {
      SOUK_REDIS_URL: "redis://localhost",
      SOUK_DATABASE_URL: "mariadb://u:p@db/souk_{service}",
      SOUK_PEERS_URL: "http://souk-{service}:8080",
      SOUK_KEYS_DIR: "/keys",
    };
    const without = (name: keyof typeof whole, instead?: string) => refused(["order"], { ...whole, [name]: instead });

    it("knows where the other services are, by one pattern or by name", () => {
      const { services: here, peersUrl, keysDir } = read(["order"], whole);
      assert.deepEqual([here, peersUrl?.("catalog"), keysDir], [["order"], "http://souk-catalog:8080", "/keys"]);
      const listed = read(["order"], { ...whole, SOUK_PEERS_URL: "catalog=https://a.example, payment=http://10.0.0.2:81" });
      assert.deepEqual(listed.peersUrl?.("catalog"), "https://a.example");
      assert.deepEqual(listed.peersUrl?.("payment"), "http://10.0.0.2:81");
      const two = read(["order"], {
        ...whole,
        SOUK_PEERS_URL: "catalog=http://10.0.0.1:8080  http://10.0.0.2:81,payment=http://a",
      });
      assert.deepEqual(two.peersUrl?.("catalog"), "http://10.0.0.1:8080 http://10.0.0.2:81");
      assert.deepEqual(two.peersUrl?.("payment"), "http://a");
    });

    it("names the services it cannot reach, and what else it lacks", () => {
      assert.match(without("SOUK_PEERS_URL"), /SOUK_PEERS_URL.*catalog/);
      assert.match(without("SOUK_PEERS_URL", "payment=http://10.0.0.2"), /SOUK_PEERS_URL.*catalog/);
      assert.match(without("SOUK_DATABASE_URL"), /SOUK_DATABASE_URL/);
      assert.match(without("SOUK_KEYS_DIR"), /SOUK_KEYS_DIR/);
    });

    it("tries failed calls to them again unless the mesh does", () => {
      assert.equal(read(["order"], whole).retries, "client");
      assert.equal(read(["order"], { ...whole, SOUK_RETRIES: "mesh" }).retries, "mesh");
      assert.match(refused(["order"], { ...whole, SOUK_RETRIES: "both" }), /SOUK_RETRIES.*client.*mesh/);
    });

    it("refuses several places of a service that it cannot share calls among", () => {
      for (const urls of ["http://a http://b", "http://10.0.0.1 http://[::1]"]) {
        assert.match(without("SOUK_PEERS_URL", `catalog=${urls}`), /IP addresses/);
      }
    });

    it("refuses addresses it does not understand", () => {
      for (const url of [
        "http://souk:8080",
        "souk-{service}:8080",
        "http://souk-{service}/api",
        "catalog=",
        "=http://a",
        "catalog=x",
      ]) {
        assert.match(without("SOUK_PEERS_URL", url), /it must be like http:\/\/souk-\{service\}:8080/, url);
      }
    });
  });

  describe("of production", () => {
    const all = ["order", "payment"];
    const whole = {
      SOUK_ENV: "production",
      SOUK_DATABASE_URL: "mariadb://u:p@db/souk_{service}",
      SOUK_REDIS_URL: "redis://redis",
      SOUK_ISSUER: "https://id.example/",
      SOUK_PROCESSOR: "https://processor.example/v1/",
      SOUK_PROCESSOR_TOKEN: "s3cret-s3cret",
    };
    const readAll = (env: Record<string, string | undefined>, more: object = {}) => {
      try {
        const result = readConfig({ argv: [], env, services: all, ...more });
        return "config" in result ? result.config : assert.fail();
      } catch (error) {
        return error instanceof ConfigError ? error.message : assert.fail(String(error));
      }
    };

    it("is whole with databases, Redis, an OpenID provider and a processor", () => {
      const config = readAll(whole);
      assert.ok(typeof config !== "string", String(config));
      const { issuer, issuerAudience, issuerRolesClaim, issuerJwks, processor, stores, seed, migrate } = config;
      assert.deepEqual([issuer, issuerAudience, issuerRolesClaim, issuerJwks], ["https://id.example/", "souk", "roles", undefined]);
      assert.equal(processor, "https://processor.example/v1");
      assert.deepEqual([stores, seed, migrate], ["production", false, false]);
    });

    it("refuses embedded parts and names what each needs", () => {
      for (const part of ["SOUK_DATABASE_URL", "SOUK_REDIS_URL", "SOUK_ISSUER", "SOUK_PROCESSOR"]) {
        assert.ok(String(readAll({ SOUK_ENV: "production" })).includes(part), part);
        const sentence = String(readAll({ ...whole, [part]: undefined }));
        assert.match(sentence, /production never falls back to an embedded part\. It lacks:\n {2}- [^\n]*\nTo try/);
        assert.ok(sentence.includes(part), part);
      }
    });

    it("needs a processor where payment runs, and the tables alone to work on them", () => {
      const elsewhere = { SOUK_PEERS_URL: "http://souk-{service}", SOUK_KEYS_DIR: "/keys" };
      const order = readConfig({ argv: ["order"], env: { ...whole, ...elsewhere, SOUK_PROCESSOR: undefined }, services: all });
      assert.ok("config" in order);
      const { SOUK_ENV, SOUK_DATABASE_URL } = whole;
      assert.ok(typeof readAll({ SOUK_ENV, SOUK_DATABASE_URL }, { tablesOnly: true }) !== "string");
      assert.match(String(readAll({ SOUK_ENV }, { tablesOnly: true })), /SOUK_DATABASE_URL/);
    });

    it("refuses a simulated processor's books, and keys that arrive in the clear", () => {
      assert.match(
        String(readAll({ ...whole, SOUK_SIMULATOR_FILE: "/books.db" })),
        /SOUK_SIMULATOR_FILE is set and SOUK_ENV is production/,
      );
      assert.match(String(readAll({ ...whole, SOUK_ISSUER: "http://id.example" })), /SOUK_ISSUER is "http:.*Use https/);
      assert.match(
        String(readAll({ ...whole, SOUK_ISSUER_JWKS: "http://id.example/keys" })),
        /SOUK_ISSUER_JWKS is "http:.*Use https/,
      );
    });
  });

  it("takes a provider's keys from an address or as they are, and refuses what is neither", () => {
    const issuer = { SOUK_ISSUER: "http://localhost:8082" };
    const jwks = (text: string) => read([], { ...issuer, SOUK_ISSUER_JWKS: text }).issuerJwks;
    assert.deepEqual(jwks("https://id.example/keys"), { url: "https://id.example/keys" });
    assert.deepEqual(jwks('{"keys":[{"kty":"EC"}]}'), { keys: { keys: [{ kty: "EC" }] } });
    for (const wrong of ["keys", '{"keys":[]}', '{"keys":[1]}', "{", "https://id.example/keys?x"]) {
      assert.match(refused([], { ...issuer, SOUK_ISSUER_JWKS: wrong }), /it must be the address of keys/, wrong);
    }
    assert.match(
      refused([], { SOUK_ISSUER_JWKS: "https://id.example/keys" }),
      /SOUK_ISSUER_JWKS has the keys of a provider that is not named/,
    );
    for (const wrong of ["id.example", "https://id.example/?a=b", "https://user@id.example", "ftp://id.example"]) {
      assert.match(refused([], { SOUK_ISSUER: wrong }), /it must be the address of an OpenID provider/, wrong);
    }
  });

  it("refuses two processors, and never repeats the processor's secret", () => {
    assert.match(
      refused([], { SOUK_PROCESSOR: "http://localhost:8081", SOUK_SIMULATOR_FILE: "books.db" }),
      /SOUK_PROCESSOR and SOUK_SIMULATOR_FILE name two processors/,
    );
    assert.match(refused([], { SOUK_PROCESSOR: "processor.example" }), /it must be the address of a service/);
    const sentence = refused([], { SOUK_PROCESSOR_TOKEN: "s3c ret" });
    assert.equal(sentence, "SOUK_PROCESSOR_TOKEN is refused: it must be 8 to 1000 characters without spaces.");
  });

  it("lists every setting with its variable, default and meaning", () => {
    const result = readConfig({ argv: ["--help"], env: {}, services });
    assert.ok("help" in result);
    for (const name of Object.keys(read()).filter((name) => name !== "services")) {
      assert.ok(result.help.includes(`--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`), name);
    }
    assert.match(result.help, /SOUK_PORT, 8080 by default/);
    assert.match(result.help, /json in production/);
  });
});
