/** Words that people use for one thing. Each finds the others, after what has the word itself. */
const GROUPS: readonly (readonly string[])[] = [
  ["laptop", "notebook"],
  ["laptops", "notebooks"],
  ["tv", "television"],
  ["tvs", "televisions"],
  ["earphones", "earbuds"],
  ["headphones", "headset"],
  ["fridge", "refrigerator"],
  ["sofa", "couch"],
  ["sneakers", "trainers"],
  ["sweater", "jumper", "pullover"],
  ["pants", "trousers"],
  ["purse", "handbag"],
  ["stroller", "pushchair", "pram"],
  ["bike", "bicycle"],
  ["bikes", "bicycles"],
  ["smartwatch", "smart watch"],
  ["smartphone", "mobile phone", "cell phone"],
  ["touchscreen", "touch screen"],
  ["ssd", "solid state drive"],
  ["hdd", "hard drive", "hard disk"],
  ["powerbank", "power bank"],
  ["psu", "power supply"],
  ["gpu", "graphics card"],
  ["ps4", "playstation 4"],
  ["ps5", "playstation 5"],
];

const others = new Map<string, string[]>();
for (const group of GROUPS) {
  for (const word of group) {
    others.set(word, [...(others.get(word) ?? []), ...group.filter((other) => other !== word)]);
  }
}

/** The other names of a folded word; empty where none is known. A name may be of several words. */
export function synonymsOf(word: string): readonly string[] {
  return others.get(word) ?? [];
}
