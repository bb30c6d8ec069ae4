import { clone, type DescField, type DescMessage, fromBinary, type Message, ScalarType, toBinary } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";

/** Longer than any text of the contract but descriptions may be, and short enough for a URL. */
const LONG_TEXT = "A".repeat(2_200);

/** The message with each of its own fields made what no rule allows; undefined of one without such fields. */
export function broken(desc: DescMessage, message: Message): Message | undefined {
  return changed(desc, message, (reflected, field) => {
    const bad = badValue(field);
    if (bad === undefined) return false;
    if (field.fieldKind === "list") reflected.get(field).add(bad as never);
    else reflected.set(field, bad as never);
    return true;
  });
}

function badValue(field: DescField): unknown {
  if (field.fieldKind === "enum") return 9_999;
  if (field.fieldKind === "list" && field.listKind === "enum") return 9_999;
  switch (field.scalar) {
    case ScalarType.STRING:
      return LONG_TEXT;
    case ScalarType.UINT32:
      return 4_294_967_295;
    case ScalarType.INT64:
      return -1n;
    default:
      return undefined;
  }
}

/** The message with every id that it names replaced; undefined of one that names none. */
export function withIds(desc: DescMessage, message: Message, id: string): Message | undefined {
  return changed(desc, message, (reflected, field) => {
    if (field.scalar !== ScalarType.STRING || !/_ids?$/.test(field.name) || /^(request|category|external)_id$/.test(field.name))
      return false;
    if (field.fieldKind === "list") {
      const list = reflected.get(field);
      if (list.size === 0) return false;
      list.clear();
      list.add(id);
    } else if (reflected.get(field) === "") return false;
    else reflected.set(field, id);
    return true;
  });
}

/** The message with a text of so many bytes; undefined where it has no text. */
export function oversized(desc: DescMessage, message: Message, bytes: number): Message | undefined {
  let isDone = false;
  return changed(desc, message, (reflected, field) => {
    if (isDone || field.scalar !== ScalarType.STRING) return false;
    if (field.fieldKind === "list") reflected.get(field).add("x".repeat(bytes));
    else reflected.set(field, "x".repeat(bytes));
    isDone = true;
    return true;
  });
}

function changed(
  desc: DescMessage,
  message: Message,
  change: (message: ReflectMessage, field: DescField & { fieldKind: string }) => boolean,
): Message | undefined {
  const copy = clone(desc, message);
  const reflected = reflect(desc, copy, false);
  const changes = desc.fields.filter((field) => change(reflected, field));
  return changes.length === 0 ? undefined : fromBinary(desc, toBinary(desc, copy));
}
