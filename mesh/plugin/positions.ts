import type { DescFile, DescMethod, DescService } from "@bufbuild/protobuf";

// Field numbers of google/protobuf/descriptor.proto, which source positions are paths of.
const FILE_SERVICE = 6;
const FILE_OPTIONS = 8;
const SERVICE_METHOD = 2;
const SERVICE_OPTIONS = 3;
const METHOD_OPTIONS = 4;

/** Something in a proto that an option belongs to. */
export type Place = DescFile | DescService | DescMethod;

/**
 * Where an option stands, such as `shop/cart/v1/cart.proto:12:5`; where the thing itself stands if the option is missing; the file's name if the
 * compiler kept no positions.
 *
 * @param field the option's number, 34 for `idempotency_level`
 */
export function positionOf(place: Place, field: number): string {
  const file = place.kind === "file" ? place : place.kind === "service" ? place.file : place.parent.file;
  const path = pathOf(place);
  const options = place.kind === "file" ? FILE_OPTIONS : place.kind === "service" ? SERVICE_OPTIONS : METHOD_OPTIONS;
  const wanted = [[...path, options, field], [...path, options], path];
  const locations = file.proto.sourceCodeInfo?.location ?? [];
  for (const each of wanted) {
    const found = locations.find((location) => startsWith(location.path, each) && location.path.length <= each.length + 1);
    const [line, column] = found?.span ?? [];
    if (line !== undefined && column !== undefined && each.length > 0) return `${file.proto.name}:${line + 1}:${column + 1}`;
  }
  return file.proto.name;
}

function pathOf(place: Place): number[] {
  switch (place.kind) {
    case "file":
      return [];
    case "service":
      return [FILE_SERVICE, place.file.services.indexOf(place)];
    case "rpc":
      return [...pathOf(place.parent), SERVICE_METHOD, place.parent.methods.indexOf(place)];
  }
}

function startsWith(path: readonly number[], start: readonly number[]): boolean {
  return start.every((value, index) => path[index] === value);
}

/** The comment before something in a proto, as plain lines without the indent of `//`. */
export function commentOf(place: DescService | DescMethod): string {
  const path = pathOf(place);
  const file = place.kind === "service" ? place.file : place.parent.file;
  const found = file.proto.sourceCodeInfo?.location.find(
    (location) => location.path.length === path.length && startsWith(location.path, path),
  );
  return (found?.leadingComments ?? "").replace(/^ /gm, "").trim();
}
