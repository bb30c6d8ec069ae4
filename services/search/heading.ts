/**
 * What accessories, parts and consumables are called. In a title, the words before such a word say what it belongs to: a "mouse pad" is a pad, and
 * whoever looks for a mouse does not look for it.
 */
const ACCESSORIES = new Set(
  `accessory accessories adapter adapters arm armband backpack bag bags band base battery batteries belt box bracket brackets bulb cable cables
  carrier cartridge cartridges case cases chain charger chargers clip clips component cord cords cover covers cradle dock enclosure
  extender fan film filter filters foam frame glass grip grips hanger hinge holder holders holster hub inlay insert kit lid lock locks mat mats
  mount mounts mounting pad pads part parts pen pillow plate pouch pouches protector protectors rack rail remote replacement rest ribbon
  riser screw shell shield skin skins sleeve sleeves splitter stand stands station stick sticker stickers strap straps stylus support
  tape tool toner tray tripod warranty wire`.split(/\s+/),
);

/** Where a title stops saying what the thing is, and goes on with what it is for or what comes with it. */
const TURN = /(?<!\p{L})(?:for|fits|compatible with|with|w\/|to suit)(?!\p{L})|[(,]|\s[-|]\s/u;
/** A turn so early leaves nothing to go by. */
const HEADING_MIN = 9;

/**
 * The part of a folded title that names the thing itself: "kensington gel mouse pad blue" gives "pad blue", "headset for iphone" gives "headset".
 * English only; other titles are answered whole, which changes nothing in their ranking.
 */
export function headingOf(foldedTitle: string): string {
  const turn = foldedTitle.search(TURN);
  const words = (turn >= HEADING_MIN ? foldedTitle.slice(0, turn) : foldedTitle).match(/[\p{L}\p{N}\p{M}]+/gu) ?? [];
  const accessory = words.findLastIndex((word) => ACCESSORIES.has(word));
  return words.slice(Math.max(0, accessory)).join(" ");
}
