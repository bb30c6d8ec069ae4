import type { Client } from "@connectrpc/connect";
import type { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { fail } from "#runtime/errors.ts";
import { CATEGORY_NOT_FOUND } from "./errors.ts";

/** How often the tree is asked for again because of a category that is not in it. */
const REFRESH_MS = 30_000;

/** The catalog's tree of categories, as far as searching needs it. */
export interface Categories {
  /**
   * A category with all below it. The tree is read at first use, and again when it lacks the category.
   *
   * @throws ConnectError CATEGORY_NOT_FOUND
   */
  subtree(categoryId: string, signal: AbortSignal): Promise<string[]>;
  /** Sums counts by category up to the children of one, or to the roots for "". Categories that the tree lacks are left out. */
  rollUp(
    counts: readonly (readonly [string, number])[],
    parentId: string,
    signal: AbortSignal,
  ): Promise<(readonly [string, number])[]>;
}

interface Tree {
  readonly parents: ReadonlyMap<string, string>;
  readonly children: ReadonlyMap<string, readonly string[]>;
  readonly readTime: number;
}

/** Reads the tree through the catalog's RPC and keeps it: it changes only with a new release of the catalog. */
export function categories(catalog: Pick<Client<typeof CatalogService>, "listCategories">): Categories {
  let known: Tree | undefined;
  let reading: Promise<Tree> | undefined;

  /** Concurrent callers share one call, which therefore does not end with any one of them. */
  const read = (): Promise<Tree> => {
    reading ??= catalog
      .listCategories({})
      .then((answer) => {
        known = treeOf(answer.categories);
        return known;
      })
      .finally(() => {
        reading = undefined;
      });
    return reading;
  };
  const treeWith = async (categoryId: string, signal: AbortSignal): Promise<Tree> => {
    signal.throwIfAborted();
    const tree = known ?? (await read());
    return tree.parents.has(categoryId) || categoryId === "" || Date.now() - tree.readTime < REFRESH_MS ? tree : read();
  };

  return {
    async subtree(categoryId, signal) {
      const tree = await treeWith(categoryId, signal);
      if (!tree.parents.has(categoryId)) {
        fail(CATEGORY_NOT_FOUND, { metadata: { category_id: categoryId } });
      }
      const found = [categoryId];
      for (const id of found) {
        found.push(...(tree.children.get(id) ?? []));
      }
      return found;
    },
    async rollUp(counts, parentId, signal) {
      const tree = await treeWith(parentId, signal);
      const sums = new Map<string, number>();
      for (const [categoryId, count] of counts) {
        const child = ancestorBelow(tree, categoryId, parentId);
        if (child !== undefined) {
          sums.set(child, (sums.get(child) ?? 0) + count);
        }
      }
      return [...sums].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
    },
  };
}

function treeOf(rows: readonly { categoryId: string; parentId: string }[]): Tree {
  const children = new Map<string, string[]>();
  for (const { categoryId, parentId } of rows) {
    const siblings = children.get(parentId);
    if (siblings === undefined) {
      children.set(parentId, [categoryId]);
    } else {
      siblings.push(categoryId);
    }
  }
  return { parents: new Map(rows.map((row) => [row.categoryId, row.parentId])), children, readTime: Date.now() };
}

/** The category among those directly below `parentId` that contains this one. */
function ancestorBelow(tree: Tree, categoryId: string, parentId: string): string | undefined {
  for (let id: string | undefined = categoryId; id !== undefined && id !== ""; ) {
    const above = tree.parents.get(id);
    if (above === parentId) {
      return id;
    }
    id = above;
  }
  return undefined;
}
