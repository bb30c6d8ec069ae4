import assert from "node:assert/strict";
import { type Block, type Body, type Module, readModule, ref, textsOf } from "./module.ts";

const EVERYBODY = /^(0\.0\.0\.0|::)\/0$/;

describe("what the Terraform module makes", () => {
  let souk: Module;
  before(async () => {
    souk = await readModule("terraform");
  });

  const only = (type: string): Body => {
    const [resource, ...others] = souk.resources(type);
    assert.ok(resource !== undefined && others.length === 0, `there is one ${type}`);
    return resource.body;
  };
  const block = (body: Body, name: string): Body => (body[name] as Body[])[0] ?? {};

  it("lets nobody in by an address that is everybody's: only the gateway's load balancer knows addresses at all, and its callers are named by who installs", () => {
    for (const { name, body } of souk.resources("aws_vpc_security_group_ingress_rule")) {
      const from = [body.cidr_ipv4, body.cidr_ipv6, body.prefix_list_id].filter((each) => each !== undefined);
      if (name === "gateway") assert.deepEqual(from, [ref("each.value.cidr")]);
      else assert.deepEqual([name, from.length, typeof body.referenced_security_group_id], [name, 0, "string"]);
    }
    for (const { name, body } of souk.resources("aws_security_group"))
      assert.deepEqual([name, "ingress" in body, "egress" in body], [name, false, false]);
    assert.match(String(souk.locals.get("doors")), /is_public \? var\.gateway_cidrs : \[var\.network\.cidr\]/);
    assert.deepEqual(souk.variables.get("gateway_cidrs")?.body.default, []);
    const written = souk.blocks
      .filter(({ kind }) => kind !== "variable")
      .flatMap(({ type, body }) => textsOf(body).map((each) => ({ type, ...each })));
    const open = written.filter(({ text }) => EVERYBODY.test(text)).map(({ type, at }) => `${type} ${at}`);
    assert.deepEqual(
      open,
      ["aws_route_table route.0.cidr_block", "aws_route_table route.0.cidr_block"],
      "routes out, and nothing else",
    );
  });

  it("has databases, Redis and nodes in private subnets alone, which nothing outside can reach", () => {
    assert.equal(only("aws_db_instance").publicly_accessible, false);
    for (const type of ["aws_db_subnet_group", "aws_memorydb_subnet_group", "aws_eks_node_group"])
      assert.equal(only(type).subnet_ids, ref("local.private_subnet_ids"));
    assert.equal(souk.locals.get("private_subnet_ids"), ref("[for subnet in aws_subnet.private : subnet.id]"));
    for (const { body } of souk.resources("aws_subnet")) assert.equal(body.map_public_ip_on_launch, undefined);
    for (const { body } of souk
      .resources("aws_vpc_security_group_ingress_rule")
      .filter(({ name }) => ["mysql", "redis"].includes(name)))
      assert.equal(body.referenced_security_group_id, ref("aws_eks_cluster.souk.vpc_config[0].cluster_security_group_id"));
  });

  it("keeps the cluster's API from the world", () => {
    const vpc = block(only("aws_eks_cluster"), "vpc_config");
    assert.equal(vpc.endpoint_private_access, true);
    assert.equal(vpc.endpoint_public_access, ref("length(var.admin_cidrs) > 0"));
    const { default: unset, validation } = souk.variables.get("admin_cidrs")?.body ?? {};
    assert.deepEqual(unset, []);
    assert.match(String((validation as Body[])[0]?.condition), /!endswith\(cidr, "\/0"\)/);
  });

  it("encrypts all that is at rest with its own key, which is changed every year", () => {
    const key = ref("aws_kms_key.souk.arn");
    const disk = block(block(only("aws_launch_template"), "block_device_mappings"), "ebs");
    const bucket = block(
      block(only("aws_s3_bucket_server_side_encryption_configuration"), "rule"),
      "apply_server_side_encryption_by_default",
    );
    const mysql = only("aws_db_instance");
    assert.deepEqual([disk.encrypted, disk.kms_key_id], [true, key]);
    assert.deepEqual([mysql.storage_encrypted, mysql.kms_key_id, mysql.performance_insights_kms_key_id], [true, key, key]);
    assert.deepEqual([bucket.sse_algorithm, bucket.kms_master_key_id], ["aws:kms", key]);
    assert.equal(only("aws_memorydb_cluster").kms_key_arn, key);
    assert.equal(only("aws_secretsmanager_secret").kms_key_id, key);
    assert.deepEqual(block(only("aws_eks_cluster"), "encryption_config"), { provider: [{ key_arn: key }], resources: ["secrets"] });
    assert.equal(only("aws_kms_key").enable_key_rotation, true);
  });

  it("speaks TLS with MySQL, Redis and the bucket, and with none of them otherwise", () => {
    const parameters = parametersOf(only("aws_db_parameter_group"));
    assert.equal(parameters.require_secure_transport, "1");
    assert.match(String(souk.locals.get("database_query")), /^\?tls=amazon-rds$/);
    for (const url of ["database_url", "admin_url"]) assert.match(String(souk.locals.get(url)), /\$\{local\.database_query\}$/);
    assert.equal(only("aws_memorydb_cluster").tls_enabled, true);
    assert.match(String(souk.locals.get("redis_url")), /^rediss\+cluster:\/\//);
    const statement = block(souk.blocks.find(({ name }) => name === "photos_over_tls")?.body ?? {}, "statement");
    assert.deepEqual([statement.effect, block(statement, "condition").variable], ["Deny", "aws:SecureTransport"]);
  });

  it("has a MySQL that admits READ COMMITTED, loses nothing it acknowledged, is backed up and refuses to be deleted", () => {
    const { binlog_format, sync_binlog, innodb_flush_log_at_trx_commit, transaction_isolation } = parametersOf(
      only("aws_db_parameter_group"),
    );
    assert.deepEqual(
      [binlog_format, sync_binlog, innodb_flush_log_at_trx_commit, transaction_isolation],
      ["ROW", "1", "1", "READ-COMMITTED"],
    );
    const mysql = only("aws_db_instance");
    assert.deepEqual([mysql.engine, mysql.multi_az, mysql.skip_final_snapshot], ["mysql", true, false]);
    assert.equal(mysql.deletion_protection, ref("var.deletion_protection"));
    assert.equal(souk.variables.get("deletion_protection")?.body.default, true);
    assert.equal(mysql.backup_retention_period, ref("var.database.backup_days"));
  });

  it("has a Redis that evicts nothing, asks for a password and has a replica", () => {
    assert.deepEqual(block(only("aws_memorydb_parameter_group"), "parameter"), { name: "maxmemory-policy", value: "noeviction" });
    assert.equal(block(only("aws_memorydb_user"), "authentication_mode").type, "password");
    assert.doesNotMatch(String(only("aws_memorydb_user").access_string), /nopass/);
    assert.equal(only("aws_memorydb_cluster").acl_name, ref("aws_memorydb_acl.souk.name"));
  });

  it("has a bucket that can be made public by nobody", () => {
    const { bucket: _, ...blocked } = only("aws_s3_bucket_public_access_block");
    assert.deepEqual(blocked, {
      block_public_acls: true,
      block_public_policy: true,
      ignore_public_acls: true,
      restrict_public_buckets: true,
    });
    assert.equal(block(only("aws_s3_bucket_ownership_controls"), "rule").object_ownership, "BucketOwnerEnforced");
  });

  it("gives catalog's pods the photos and no workload anything else; pods cannot borrow their node's identity", () => {
    assert.equal(only("aws_eks_pod_identity_association").service_account, ref("local.photos_account"));
    assert.equal(souk.locals.get("photos_account"), `${ref("local.release")}-catalog`);
    const granted = souk.blocks
      .filter(({ kind, type }) => kind === "data" && type === "aws_iam_policy_document")
      .flatMap(statementsOf);
    const wide = granted.filter(({ actions, effect }) => effect !== "Deny" && actions.some((action) => /\*$/.test(action)));
    // The account's own right to rule over its key, without which nobody could.
    assert.deepEqual(
      wide.map(({ name }) => name).filter((name) => name !== "key"),
      [],
    );
    const { http_tokens, http_put_response_hop_limit } = block(only("aws_launch_template"), "metadata_options");
    assert.deepEqual([http_tokens, http_put_response_hop_limit], ["required", 1]);
  });

  it("has no password, key or token written in it", () => {
    for (const { body, file } of souk.blocks)
      for (const { text, at } of textsOf(body))
        if (/(password|secret_string|token|_pem)$/.test(at))
          assert.match(text, /^\$\{[^"]*\}$|^(required|password)$/, `${file}: ${at}`);
  });
});

/** What a parameter group's one dynamic block sets. */
function parametersOf(body: Body): Readonly<Record<string, unknown>> {
  const { parameter } = body.dynamic as Record<string, Body[]>;
  return parameter?.[0]?.for_each as Readonly<Record<string, unknown>>;
}

function statementsOf({ name, body }: Block) {
  return (body.statement as Body[]).map(({ actions, effect }) => ({ name, effect, actions: [actions].flat().map(String) }));
}
