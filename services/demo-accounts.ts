/** The sellers of the demo catalogue, each the `name` of an account below. */
export type DemoSeller = "ada" | "kenji" | "maria" | "noor" | "sam" | "tess";

/** A postal address of a demo account; the street is invented. */
export interface DemoAddress {
  readonly recipient: string;
  readonly lines: readonly string[];
  readonly city: string;
  readonly region: string;
  readonly postalCode: string;
  readonly countryCode: "US" | "JP";
}

/** A demo account. `accountId` is the same on every machine; `destinationToken` is there for sellers only, `currency` is what they are paid in. */
export interface DemoAccount {
  readonly name: string;
  readonly accountId: string;
  readonly displayName: string;
  readonly role: "seller" | "buyer" | "operator";
  readonly operator: boolean;
  readonly currency: "USD" | "JPY";
  readonly address: DemoAddress;
  readonly destinationToken?: string;
}

const us = (recipient: string, line: string, city: string, region: string, postalCode: string): DemoAddress => {
  return { recipient, lines: [line], city, region, postalCode, countryCode: "US" };
};
const jp = (recipient: string, line: string, city: string, region: string, postalCode: string): DemoAddress => {
  return { recipient, lines: [line], city, region, postalCode, countryCode: "JP" };
};

function seller(name: DemoSeller, serial: number, displayName: string, address: DemoAddress): DemoAccount {
  return { ...account(name, "seller", serial, displayName, address), destinationToken: `bank_demo_${name}` };
}

// The ids have the form of UUID v7 with a fixed time, so that they sort as given and are valid wherever an account's id is asked for.
function account(name: string, role: DemoAccount["role"], serial: number, displayName: string, address: DemoAddress): DemoAccount {
  const accountId = `01900000-0000-7000-8000-${serial.toString(16).padStart(12, "0")}`;
  const currency = address.countryCode === "JP" ? "JPY" : "USD";
  return { name, accountId, displayName, role, operator: role === "operator", currency, address };
}

/** The demo accounts: six sellers, two buyers and one operator. No such person or street exists. */
export const accounts: readonly DemoAccount[] = [
  seller("ada", 0xa1, "Ada's Bench", us("Ada Quill", "14 Lanternfish Lane", "Portland", "OR", "97205")),
  seller("kenji", 0xa2, "Kenji 堂", jp("Kenji Hoshimura", "架空町 3-14-9", "台東区", "東京都", "111-0000")),
  seller("maria", 0xa3, "Maria & Daughters", us("Maria Solano", "208 Tamarind Court", "San Antonio", "TX", "78209")),
  seller("noor", 0xa4, "Noor's Attic", us("Noor Kestrel", "77 Paperboat Street", "Ann Arbor", "MI", "48104")),
  seller("sam", 0xa5, "Sam's Garage", us("Sam Overby", "3910 Rattlebridge Road", "Boise", "ID", "83706")),
  seller("tess", 0xa6, "Tess Spins", us("Tess Arkwright", "52 Halfnote Avenue", "Nashville", "TN", "37206")),
  account("ben", "buyer", 0xb1, "Ben", us("Ben Fairlight", "6 Quarterdeck Way", "Providence", "RI", "02903")),
  account("yuki", "buyer", 0xb2, "ゆき", jp("Yuki Amagawa", "架空通 8-2", "中京区", "京都府", "604-0000")),
  account("olga", "operator", 0xc1, "Olga (operations)", us("Olga Brandt", "1 Souk Plaza", "Chicago", "IL", "60607")),
];
