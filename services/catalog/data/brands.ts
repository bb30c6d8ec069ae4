// Commas part them: no brand here has one in its name.
const names = `
7 For All Mankind, Acer, Adidas, Aesop, Anker, APC, Apple, Arc'teryx, Armani, Asics, ASUS, Audio-Technica, Avent, BabyBjörn,
Bandai, Barbie, Behringer, Belkin, Benchmade, Birkenstock, Black Diamond, Blundstone, Bodum, Bosch, Bose, Boss, Breville, Brooks,
Brother, Bugaboo, Burberry, Burton, C2G, Callaway, Calphalon, Canon, Carhartt, Casio, Celestron, Chanel, Chicco, Cisco, Citizen,
Clarks, Clinique, Coach, Coleman, Columbia, Converse, Corsair, Crayola, Cricut, Crocs, Crucial, Daiwa, Dell, DeLonghi, Denon,
DeWalt, Dior, DJI, Dooney & Bourke, Dr. Martens, Dunlop, Dymo, Dyson, Eastpak, Epson, Ergobaby, Everlane, Fender, Fisher-Price,
Fiskars, Fitbit, FLEXA, Fluke, Fossil, Franklin, Fujifilm, Fujitsu, Funko, Garmin, Gibson, Gillette, Globber, Good Smile Company,
Google, GoPro, Graco, Gucci, Hario, Hasbro, Hasselblad, Helly Hansen, Herman Miller, Herschel, HoMedics, Honeywell, Hori, HP,
Hugo Boss, Hydro Flask, Ibanez, IKEA, Instant Pot, Intel, JBL, J.Crew, Kate Spade, Kensington, Kingston, KitchenAid,
Klean Kanteen, Kodak, Kokuyo, Konami, Kong, Korg, Kyocera, La Mer, Lamy, Leatherman, Le Creuset, LEGO, Leica, Lenovo, Levi's,
Lexmark, LG, L.L.Bean, Lodge, Logitech, Lululemon, Madewell, Makita, Mammut, Marmot, Mattel, Maxell, Meinl, Michael Kors,
Michelin, Microsoft, Midori, Milwaukee, Minolta, Mizuno, Moleskine, Montblanc, Motorola, MSI, MSR, Muji, Netgear, New Balance,
Nike, Nikon, Nintendo, Noctua, Noritake, Oakley, Olympus, Omega, Omron, Oral-B, Osprey, OXO, Panasonic, Patagonia, Pentax, Petzl,
Philips, Pilot, Pioneer, Playmobil, Pokémon, Polaroid, Prada, Puma, Pyrex, Ralph Lauren, Ravensburger, Ray-Ban, Razer, REI,
Remington, Ricoh, Roku, Roland, Sailor, Salomon, Samsonite, Samsung, SanDisk, Sanrio, Schleich, Seagate, Sega, Seiko, Sennheiser,
Shimano, Shure, Singer, Snow Peak, Sonos, Sony, Specialized, Staedtler, Stanley, StarTech.com, Staub, SteelSeries, Stihl, Stüssy,
Sylvanian Families, Synology, Takara Tomy, Tamiya, TaylorMade, Technics, Texas Instruments, The North Face, Therm-a-Rest, Thermos,
Thule, Tiffany & Co., Timberland, Timbuk2, Titleist, Tommy Hilfiger, Topps, Toshiba, TP-Link, Trek, Tripp Lite, Ultra Pro, Uniqlo,
UPPAbaby, Vans, Vera Bradley, Verbatim, Victorinox, Vitamix, Weber, Wedgwood, Western Digital, Wilson, Wizards of the Coast, WMF,
Wüsthof, Xbox, Xerox, Yamaha, Yeti, Yonex, Yves Saint Laurent, Zara, Zeiss, Zippo, Zojirushi, Zoom
`;

/** The brands the catalog knows, in the spelling shown to people; at most 60 characters each, unique without regard to case. */
export const brands: readonly string[] = names.trim().split(/,\s+/);
