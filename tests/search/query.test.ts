import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { headingOf } from "../../services/search/heading.ts";
import { parseQuery, TERMS_MAX } from "../../services/search/query.ts";
import { fold, spellings, withBigrams } from "../../services/search/text.ts";

describe("the words of a text", () => {
  it("are folded: width, case, curly quotes, trade marks", () => {
    assert.equal(fold("ＮＩＫＯＮ Ｄ７５０"), "nikon d750");
    assert.equal(fold("LabelWriter™ 450"), "labelwriter  450");
    assert.equal(fold("Men’s coat"), "mens coat");
    assert.equal(fold("ｶﾒﾗ"), "カメラ");
  });

  it("read a quote after a number as inch, and quotes around words as nothing", () => {
    assert.equal(fold('24" monitor').replace(/ +/g, " "), "24 inch monitor");
    assert.equal(fold("13.3” laptop").replace(/ +/g, " "), "13.3 inch laptop");
    assert.equal(fold('case for "iphone 12" black').replace(/ +/g, " "), "case for iphone 12 black");
  });

  it("are pairs of characters where nobody writes spaces, and the last character alone", () => {
    assert.equal(withBigrams("東京都").trim(), "東京 京都 都");
    assert.equal(withBigrams("sony ヘッドホン mk2").replace(/ +/g, " "), "sony ヘッ ッド ドホ ホン ン mk2");
    assert.equal(withBigrams("아이폰").trim(), "아이 이폰 폰");
    assert.equal(withBigrams("plain words"), "plain words");
  });

  it("have other spellings: compounds as one word, numbers with and without a space before the unit", () => {
    assert.equal(spellings("sony wh-1000xm4"), "wh1000xm4");
    assert.equal(spellings("usb-c hub"), "usbc");
    assert.equal(spellings("ssd 500gb"), "500 gb");
    assert.equal(spellings("ssd 500 gb"), "500gb");
    assert.equal(spellings("plain words"), "");
  });
});

describe("the heading of a title", () => {
  it("is what the thing is, without what it belongs to", () => {
    assert.equal(headingOf("kensington gel mouse pad blue"), "pad blue");
    assert.equal(headingOf("philips headset for iphone"), "philips headset");
    assert.equal(headingOf("lenovo thinkpad usb laser mouse"), "lenovo thinkpad usb laser mouse");
  });

  it("is the whole title when nothing tells more", () => {
    assert.equal(headingOf("古い 時計"), "古い 時計");
    assert.equal(headingOf("for parts"), "parts");
    assert.equal(headingOf(""), "");
  });
});

describe("a query", () => {
  it("asks for every word, the last one also as a beginning", () => {
    assert.deepEqual(parseQuery("Red shoe"), {
      exact: '("red" AND "shoe") OR "redshoe"',
      widened: '("red" AND ("shoe" OR "shoe"*)) OR "redshoe"',
      relaxed: '"red" OR "shoe" OR "redshoe"',
    });
  });

  it("asks for the parts of a model number side by side, or as one", () => {
    assert.equal(parseQuery("wh-1000xm4")?.exact, '("wh 1000xm4" OR "wh1000xm4")');
  });

  it("asks for Japanese by pairs, and for one character as a beginning", () => {
    assert.equal(parseQuery("東京都")?.exact, '("東京" AND "京都")');
    assert.equal(parseQuery("猫")?.exact, '"猫"*');
  });

  it("leaves out words that say nothing, unless there are no others", () => {
    assert.equal(parseQuery("case for the iphone")?.exact, '("case" AND "iphone") OR "caseiphone"');
    assert.equal(parseQuery("the")?.exact, '"the"');
  });

  it("knows other names of a thing", () => {
    assert.match(parseQuery("laptop bag")?.widened ?? "", /"laptop" OR "notebook"/);
    assert.doesNotMatch(parseQuery("laptop bag")?.exact ?? "", /notebook/);
  });

  it("without a word in it is none", () => {
    for (const typed of ["", "   ", "!?", '"', "-", "🎸", "* OR"]) {
      assert.equal(parseQuery(typed)?.exact, typed === "* OR" ? '"or"' : undefined);
    }
  });

  it("is cut after so many terms", () => {
    const typed = Array.from({ length: 60 }, (_, i) => `w${i}`).join(" ");
    assert.equal(parseQuery(typed)?.exact.match(/AND/g)?.length, TERMS_MAX - 1);
  });

  it("is never syntax, whatever is typed", () => {
    const db = new DatabaseSync(":memory:");
    db.exec("create virtual table words using fts5(title, brand, description, spellings, heading, tokenize = 'porter unicode61')");
    const find = db.prepare("select rowid from words where words match ?");
    const piece = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string(),
      fc.constantFrom('"', "'", "*", "(", ")", "{title}", ":", "^", "AND", "NOT", "NEAR(a b)", "+", "-", "\0", "ー", "東", "''"),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const parsed = parseQuery(pieces.join(" ").slice(0, 200));
        if (parsed !== undefined) {
          for (const expression of [
            parsed.exact,
            parsed.widened,
            parsed.relaxed ?? parsed.exact,
            `{heading} : (${parsed.exact})`,
          ]) {
            find.all(expression);
          }
        }
      }),
      { numRuns: 300 },
    );
    db.close();
  });
});
