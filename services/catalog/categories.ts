import { create } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { type Category, CategorySchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { failure } from "#runtime/errors.ts";
import type { CategoryData } from "./data/categories.ts";
import { CATEGORY_NOT_FOUND, CATEGORY_NOT_LEAF } from "./errors.ts";

/** The tree of categories. It is reference data: it changes with the program, not with a table. */
export interface Categories {
  /** The whole tree, parents before children. */
  readonly all: readonly Category[];
  /** CATEGORY_NOT_FOUND or CATEGORY_NOT_LEAF; undefined where listings may stand in the category. */
  problem(categoryId: string): ConnectError | undefined;
}

/**
 * Reads the tree from its rows.
 *
 * @throws Error when a row names a parent that does not stand somewhere under a root, or an id stands twice.
 */
export function categoryTree(rows: readonly CategoryData[]): Categories {
  const children = new Map<string, CategoryData[]>();
  for (const row of rows) {
    const siblings = children.get(row.parentId);
    if (siblings === undefined) {
      children.set(row.parentId, [row]);
    } else {
      siblings.push(row);
    }
  }
  const found = new Map<string, Category>();
  const walk = (parentId: string, depth: number): void => {
    for (const { categoryId, name } of children.get(parentId) ?? []) {
      const leaf = !children.has(categoryId);
      found.set(categoryId, create(CategorySchema, { categoryId, parentId, name, leaf, depth }));
      walk(categoryId, depth + 1);
    }
  };
  walk("", 1);
  if (found.size !== rows.length) {
    throw new Error(`${rows.length - found.size} of ${rows.length} categories stand twice or hang under no root.`);
  }
  return {
    all: [...found.values()],
    problem(categoryId) {
      const category = found.get(categoryId);
      if (category === undefined) {
        return failure(CATEGORY_NOT_FOUND, { metadata: { category_id: categoryId } });
      }
      return category.leaf ? undefined : failure(CATEGORY_NOT_LEAF, { metadata: { category_id: categoryId } });
    },
  };
}
