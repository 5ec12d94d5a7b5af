// A NATS operator with one account and one user, made on the spot: what a server trusts and the credentials file that opens it. The tokens
// are the NATS kind of JWT (ADR-14 of nats-architecture-and-design), signed with ed25519 keys.
import { nkeys } from "@nats-io/transport-node";

export interface NatsOperator {
  /** Lines of the server's configuration. */
  readonly configuration: string;
  /** Text of the user's credentials file. */
  readonly credentials: string;
}

type KeyPair = ReturnType<typeof nkeys.createUser>;

const NO_LIMITS = { subs: -1, data: -1, payload: -1 };
const ACCOUNT_LIMITS = {
  ...NO_LIMITS,
  imports: -1,
  exports: -1,
  wildcards: true,
  conn: -1,
  leaf: -1,
  mem_storage: -1,
  disk_storage: -1,
  streams: -1,
  consumer: -1,
};

function part(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function token(signer: KeyPair, subject: KeyPair, name: string, nats: object): string {
  const claims = { jti: name, iat: 1_700_000_000, iss: signer.getPublicKey(), name, sub: subject.getPublicKey(), nats };
  const body = `${part({ typ: "JWT", alg: "ed25519-nkey" })}.${part(claims)}`;
  return `${body}.${Buffer.from(signer.sign(Buffer.from(body))).toString("base64url")}`;
}

export function natsOperator(): NatsOperator {
  const [operator, system, account] = [nkeys.createOperator(), nkeys.createAccount(), nkeys.createAccount()];
  const user = nkeys.createUser();
  const accountToken = (of: KeyPair, name: string, limits: object): string =>
    token(operator, of, name, { limits, type: "account", version: 2 });
  const userToken = token(account, user, "moevie", { ...NO_LIMITS, pub: {}, sub: {}, type: "user", version: 2 });
  const {
    mem_storage: _memory,
    disk_storage: _disk,
    streams: _streams,
    consumer: _consumer,
    ...systemLimits
  } = ACCOUNT_LIMITS;
  return {
    configuration: `operator: ${token(operator, operator, "test", { type: "operator", version: 2 })}
system_account: ${system.getPublicKey()}
resolver: MEMORY
resolver_preload: {
  ${system.getPublicKey()}: ${accountToken(system, "system", systemLimits)}
  ${account.getPublicKey()}: ${accountToken(account, "moevie", ACCOUNT_LIMITS)}
}`,
    credentials: `-----BEGIN NATS USER JWT-----
${userToken}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
${Buffer.from(user.getSeed()).toString()}
------END USER NKEY SEED------
`,
  };
}
