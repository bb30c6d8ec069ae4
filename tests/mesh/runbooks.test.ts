import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { root } from "../../tools/checks/run.ts";

const FOLDER = join(root, "docs/runbooks");
/** Where rules are written that the charts install. */
const RULES = ["mesh/generated/alert-rules.yaml", ...globSync("helm/souk/rules/*.yaml", { cwd: root }).sort()];
/** What each section says, by the words that its paragraphs begin with. */
const PARTS = ["It means", "Who is hurt", "Look here first", "Likely causes", "Mend", "Over when"];

interface Alert {
  readonly alert: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly runbook_url: string };
}

function alerts(): Alert[] {
  return RULES.flatMap((file) => {
    const { groups } = parse(readFileSync(join(root, file), "utf8")) as { groups: { rules: Alert[] }[] };
    return groups.flatMap(({ rules }) => rules.filter(({ alert }) => alert !== undefined));
  });
}

/** A heading as a link names it. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[^a-z0-9 -]/g, "")
    .replaceAll(" ", "-");

/** The sections of a page by their anchors. */
function sections(page: string): Map<string, string> {
  const [, ...parts] = readFileSync(join(FOLDER, page), "utf8").split(/^#{1,3} /m);
  return new Map(parts.map((part) => [anchorOf(part.split("\n", 1)[0] as string), part]));
}

describe("an alert's runbook", () => {
  it("is a page and a section of it that are there, for every alert, and says all that a person on call asks", () => {
    const missing = alerts().flatMap(({ alert, annotations }) => {
      const [page = "", anchor = ""] = annotations.runbook_url.split("#");
      if (anchor !== alert.toLowerCase()) return [`${alert} leads to ${annotations.runbook_url}`];
      if (!existsSync(join(FOLDER, page))) return [`${alert}: there is no ${page}`];
      const text = sections(page).get(anchor);
      if (text === undefined) return [`${alert}: ${page} has no such section`];
      return PARTS.filter((part) => !text.includes(`\n**${part}**`)).map((part) => `${alert}: ${page} does not say "${part}"`);
    });
    assert.deepEqual([...new Set(missing)], []);
    assert.ok(alerts().length >= 8);
  });

  it("is for an alert that there is", () => {
    const names = new Set(alerts().map(({ alert }) => alert.toLowerCase()));
    const pages = globSync("*.md", { cwd: FOLDER }).filter((page) => page !== "README.md");
    const others = pages.flatMap((page) => [...sections(page).keys()].slice(1).filter((each) => !names.has(each)));
    assert.deepEqual(others, []);
  });

  it("stands in the list of runbooks, and leads to nothing that is not there", () => {
    const problems = globSync("*.md", { cwd: FOLDER }).flatMap((page) => {
      const links = [...readFileSync(join(FOLDER, page), "utf8").matchAll(/\]\(([^)#:]*)(?:#([^)]*))?\)/g)];
      return links.flatMap(([link, file = "", anchor]) => {
        const target = file === "" ? page : file;
        if (!existsSync(join(FOLDER, target))) return [`${page}: ${link}`];
        return anchor === undefined || sections(target).has(anchor) ? [] : [`${page}: ${link}`];
      });
    });
    const list = readFileSync(join(FOLDER, "README.md"), "utf8");
    const unlisted = globSync("*.md", { cwd: FOLDER }).filter((page) => page !== "README.md" && !list.includes(`(${page})`));
    assert.deepEqual([...problems, ...unlisted], []);
  });

  it("is for a person at once, or in working hours", () => {
    assert.deepEqual(new Set(alerts().map(({ labels }) => labels.severity)), new Set(["page", "ticket"]));
  });
});
