// The Lease and the ConfigMap of the controllers of a Kubernetes cluster, read and written by compare-and-set. The only file that imports
// the Kubernetes client, and only once it is asked to: the client takes a second to load, and one machine has no use for it.
import type { ApiConstructor, V1ConfigMap, V1Lease } from "@kubernetes/client-node";
import { MoevieError, limit } from "@moevie/contracts";

type Client = typeof import("@kubernetes/client-node");
type Api<T extends "CoordinationV1Api" | "CoreV1Api"> = InstanceType<Client[T]>;

/** What a class of the client holds, without the class. */
type Plain<T> = T extends Date ? T : T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;
export type LeaseObject = Plain<V1Lease>;
export type ConfigMapObject = Plain<V1ConfigMap>;

export interface ObjectName {
  readonly namespace: string;
  readonly name: string;
}

/** What is thrown everywhere: PEER_UNAVAILABLE with what was asked for and the API's answer, or none within kubernetesCallMsMax. */
export class KubernetesObjects {
  readonly #client: Client;
  readonly #coordination: Api<"CoordinationV1Api">;
  readonly #core: Api<"CoreV1Api">;

  private constructor(client: Client, coordination: Api<"CoordinationV1Api">, core: Api<"CoreV1Api">) {
    this.#client = client;
    this.#coordination = coordination;
    this.#core = core;
  }

  /** By a kubeconfig file, or without one as the pod's own account. Throws CONFIG_INVALID. */
  static async connect(kubeconfig: string): Promise<KubernetesObjects> {
    const client = await import("@kubernetes/client-node");
    const config = new client.KubeConfig();
    try {
      if (kubeconfig === "") config.loadFromCluster();
      else config.loadFromFile(kubeconfig);
    } catch (cause) {
      throw new MoevieError("CONFIG_INVALID", `MOEVIE_KUBECONFIG is "${kubeconfig}"; it cannot be read`, { cause });
    }
    const server = config.getCurrentCluster()?.server ?? "";
    if (!URL.canParse(server)) {
      const allowed =
        kubeconfig === "" ? "a file, outside a pod with a token of its own" : "a kubeconfig with a current context";
      throw new MoevieError("CONFIG_INVALID", `MOEVIE_KUBECONFIG is "${kubeconfig}"; allowed: ${allowed}`);
    }
    const api = <T extends InstanceType<Client["CoordinationV1Api" | "CoreV1Api"]>>(type: ApiConstructor<T>): T =>
      new type(
        client.createConfiguration({
          baseServer: new client.ServerConfiguration(server, {}),
          authMethods: { default: config },
          promiseMiddleware: [
            {
              pre: (context) => {
                context.setSignal(AbortSignal.timeout(limit("kubernetesCallMsMax")));
                return Promise.resolve(context);
              },
              post: (context) => Promise.resolve(context),
            },
          ],
        }),
      );
    return new KubernetesObjects(client, api(client.CoordinationV1Api), api(client.CoreV1Api));
  }

  /** A point in time as Leases have it, for people who read them. */
  microTime(wallMs: number): InstanceType<Client["V1MicroTime"]> {
    return new this.#client.V1MicroTime(wallMs);
  }

  /** Undefined where there is none. */
  readLease(at: ObjectName): Promise<LeaseObject | undefined> {
    return this.#ask(`get lease ${path(at)}`, [404], () => this.#coordination.readNamespacedLease({ ...at }));
  }

  /** Makes a Lease that has no resource version, replaces one that has: as it is then, or undefined if somebody was faster. */
  writeLease(at: ObjectName, body: LeaseObject): Promise<LeaseObject | undefined> {
    const { namespace } = at;
    return body.metadata?.resourceVersion === undefined
      ? this.#ask(`create lease ${path(at)}`, [409], () =>
          this.#coordination.createNamespacedLease({ namespace, body }),
        )
      : this.#ask(`update lease ${path(at)}`, [404, 409], () =>
          this.#coordination.replaceNamespacedLease({ ...at, body }),
        );
  }

  /** Undefined where there is none. */
  readConfigMap(at: ObjectName): Promise<ConfigMapObject | undefined> {
    return this.#ask(`get configmap ${path(at)}`, [404], () => this.#core.readNamespacedConfigMap({ ...at }));
  }

  /** As writeLease. */
  writeConfigMap(at: ObjectName, body: ConfigMapObject): Promise<ConfigMapObject | undefined> {
    const { namespace } = at;
    return body.metadata?.resourceVersion === undefined
      ? this.#ask(`create configmap ${path(at)}`, [409], () =>
          this.#core.createNamespacedConfigMap({ namespace, body }),
        )
      : this.#ask(`update configmap ${path(at)}`, [404, 409], () =>
          this.#core.replaceNamespacedConfigMap({ ...at, body }),
        );
  }

  /** `refusals` are the states that mean undefined. */
  async #ask<T>(what: string, refusals: readonly number[], call: () => Promise<T>): Promise<T | undefined> {
    try {
      return await call();
    } catch (cause) {
      if (!(cause instanceof this.#client.ApiException))
        throw new MoevieError("PEER_UNAVAILABLE", `The Kubernetes API does not answer "${what}".`, { cause });
      if (refusals.includes(cause.code)) return undefined;
      const rights = cause.code === 403 ? ": the account may not" : "";
      throw new MoevieError("PEER_UNAVAILABLE", `The Kubernetes API answered ${cause.code} to "${what}"${rights}.`, {
        cause,
      });
    }
  }
}

function path({ namespace, name }: ObjectName): string {
  return `${namespace}/${name}`;
}
