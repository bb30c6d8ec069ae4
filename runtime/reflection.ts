import type { MessageInitShape } from "@bufbuild/protobuf";
import { createRegistry, type DescFile, type DescMessage, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import type { ServerReflectionResponseSchema } from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection, type ServerReflectionRequest } from "#gen/grpc/reflection/v1/reflection_pb.ts";

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;

/** Registers `grpc.reflection.v1`: generic clients ask it for the contract. Production leaves it out. */
export function reflectionRoutes(router: ConnectRouter, services: () => readonly DescService[]): void {
  let contract: Contract | undefined;
  router.service(ServerReflection, {
    async *serverReflectionInfo(requests) {
      contract ??= contractOf(services());
      for await (const originalRequest of requests) {
        yield {
          validHost: originalRequest.host,
          originalRequest,
          messageResponse: answer(contract, originalRequest.messageRequest),
        };
      }
    },
  });
}

interface Contract {
  readonly services: readonly DescService[];
  readonly files: ReadonlyMap<string, DescFile>;
  /** The file that declares a name: a service, a method, a message, a field, an enum, a value, an extension. */
  fileOf(symbol: string): DescFile | undefined;
  extensionsOf(message: string): ReadonlyMap<number, DescFile>;
}

function contractOf(services: readonly DescService[]): Contract {
  const files = new Map<string, DescFile>();
  const add = (file: DescFile) => {
    if (files.has(fileName(file))) return;
    files.set(fileName(file), file);
    file.dependencies.forEach(add);
  };
  for (const service of services) add(service.file);
  const registry = createRegistry(...files.values());
  const symbols = new Map<string, DescFile>();
  const extensions = new Map<string, Map<number, DescFile>>();
  for (const desc of registry) {
    symbols.set(desc.typeName, desc.file);
    switch (desc.kind) {
      case "service":
        for (const method of desc.methods) symbols.set(`${desc.typeName}.${method.name}`, desc.file);
        break;
      case "message":
        addMembers(symbols, desc);
        break;
      case "enum": {
        // The values of an enum live beside it, not inside.
        const scope = desc.typeName.slice(0, desc.typeName.lastIndexOf(".") + 1);
        for (const value of desc.values) symbols.set(scope + value.name, desc.file);
        break;
      }
      case "extension": {
        const known = extensions.get(desc.extendee.typeName) ?? new Map<number, DescFile>();
        extensions.set(desc.extendee.typeName, known.set(desc.number, desc.file));
        break;
      }
    }
  }
  return {
    services,
    files,
    fileOf: (symbol) => symbols.get(symbol),
    extensionsOf: (message) => extensions.get(message) ?? new Map(),
  };
}

function addMembers(symbols: Map<string, DescFile>, message: DescMessage): void {
  for (const member of [...message.fields, ...message.oneofs]) symbols.set(`${message.typeName}.${member.name}`, message.file);
}

function answer(contract: Contract, request: ServerReflectionRequest["messageRequest"]): Answer {
  switch (request.case) {
    case "listServices": {
      const service = contract.services.map(({ typeName }) => ({ name: typeName }));
      return { case: "listServicesResponse", value: { service } };
    }
    case "fileByFilename":
      return filesFrom(contract.files.get(request.value), `file ${request.value}`);
    case "fileContainingSymbol":
      return filesFrom(contract.fileOf(request.value), `symbol ${request.value}`);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = request.value;
      const file = contract.extensionsOf(containingType).get(extensionNumber);
      return filesFrom(file, `extension ${extensionNumber} of ${containingType}`);
    }
    case "allExtensionNumbersOfType":
      if (contract.fileOf(request.value) === undefined) return notFound(`type ${request.value}`);
      return {
        case: "allExtensionNumbersResponse",
        value: { baseTypeName: request.value, extensionNumber: [...contract.extensionsOf(request.value).keys()] },
      };
    default:
      return { case: "errorResponse", value: { errorCode: Code.InvalidArgument, errorMessage: "The request asks for nothing." } };
  }
}

/** The file and all it imports, each before its own imports, so that a client needs one question only. */
function filesFrom(file: DescFile | undefined, what: string): Answer {
  if (file === undefined) return notFound(what);
  const seen = new Set<string>();
  const found: Uint8Array[] = [];
  const add = (next: DescFile) => {
    if (seen.has(next.name)) return;
    seen.add(next.name);
    next.dependencies.forEach(add);
    found.push(toBinary(FileDescriptorProtoSchema, next.proto));
  };
  add(file);
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto: found.reverse() } };
}

function notFound(what: string): Answer {
  return { case: "errorResponse", value: { errorCode: Code.NotFound, errorMessage: `There is no ${what} here.` } };
}

function fileName(file: DescFile): string {
  return `${file.name}.proto`;
}
