// Certificates for tests of TLS: a CA of its own for each, so that no key stands in the tree. Written out in DER, for Node reads certificates but makes none.

import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";

/** A certificate and its key, in PEM. */
export interface TestCertificate {
  readonly certificate: string;
  readonly key: string;
  /** That of the CA which has signed it. */
  readonly authority: string;
}

/** A CA that nobody trusts by himself. */
export interface TestAuthority {
  /** In PEM: who trusts this trusts what it has signed. */
  readonly certificate: string;
  /** Signs a certificate for a server of these DNS names and IPv4 addresses. */
  issue(names: readonly string[]): TestCertificate;
}

const SEQUENCE = 0x30;
const SET = 0x31;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const OBJECT_ID = 0x06;
const UTF8 = 0x0c;
const GENERALIZED_TIME = 0x18;
const TRUE = Buffer.from([0x01, 0x01, 0xff]);

/** 1.2.840.10045.4.3.2, 2.5.4.3, 2.5.29.19 and 2.5.29.17 as they are encoded. */
const ECDSA_WITH_SHA256 = der(SEQUENCE, der(OBJECT_ID, Buffer.from("2a8648ce3d040302", "hex")));
const COMMON_NAME = der(OBJECT_ID, Buffer.from("550403", "hex"));
const BASIC_CONSTRAINTS = der(OBJECT_ID, Buffer.from("551d13", "hex"));
const SUBJECT_ALT_NAME = der(OBJECT_ID, Buffer.from("551d11", "hex"));

/** Makes a CA, which the test trusts or does not. */
export function testAuthority(name: string): TestAuthority {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const isAuthority = der(SEQUENCE, BASIC_CONSTRAINTS, TRUE, der(OCTET_STRING, der(SEQUENCE, TRUE)));
  const issuer = { name, key: pair.privateKey };
  const authority = signed({ issuer, subject: name, publicKey: pair.publicKey, extension: isAuthority });
  return {
    certificate: authority,
    issue(names) {
      const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const extension = der(SEQUENCE, SUBJECT_ALT_NAME, der(OCTET_STRING, der(SEQUENCE, ...names.map(altName))));
      return {
        certificate: signed({ issuer, subject: names[0] ?? "test", publicKey, extension }),
        key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
        authority,
      };
    },
  };
}

interface Signing {
  readonly issuer: { readonly name: string; readonly key: KeyObject };
  readonly subject: string;
  readonly publicKey: KeyObject;
  readonly extension: Buffer;
}

/** RFC 5280, 4.1. */
function signed({ issuer, subject, publicKey, extension }: Signing): string {
  const day = 86_400_000;
  const body = der(
    SEQUENCE,
    der(0xa0, der(INTEGER, Buffer.from([2]))),
    der(INTEGER, Buffer.concat([Buffer.from([1]), randomBytes(15)])),
    ECDSA_WITH_SHA256,
    nameOf(issuer.name),
    der(SEQUENCE, timeOf(Date.now() - day), timeOf(Date.now() + day)),
    nameOf(subject),
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, der(SEQUENCE, extension)),
  );
  const signature = Buffer.concat([Buffer.from([0]), sign("sha256", body, issuer.key)]);
  const base64 = der(SEQUENCE, body, ECDSA_WITH_SHA256, der(BIT_STRING, signature)).toString("base64");
  return `-----BEGIN CERTIFICATE-----\n${base64.replace(/.{1,64}/g, "$&\n")}-----END CERTIFICATE-----\n`;
}

function nameOf(commonName: string): Buffer {
  return der(SEQUENCE, der(SET, der(SEQUENCE, COMMON_NAME, der(UTF8, Buffer.from(commonName)))));
}

function timeOf(time: number): Buffer {
  return der(GENERALIZED_TIME, Buffer.from(`${new Date(time).toISOString().replace(/\D/g, "").slice(0, 14)}Z`));
}

function altName(name: string): Buffer {
  return /^\d+(\.\d+){3}$/.test(name) ? der(0x87, Buffer.from(name.split(".").map(Number))) : der(0x82, Buffer.from(name));
}

function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}
