import { accounts, type DemoSeller } from "../../services/demo-accounts.ts";

export { accounts, type DemoAccount } from "../../services/demo-accounts.ts";

/** The grades of condition, best first: the names of the contract's `Condition` without their prefix. */
const CONDITIONS = ["NEW", "LIKE_NEW", "VERY_GOOD", "GOOD", "ACCEPTABLE", "FOR_PARTS"] as const;

/** One grade of condition. */
export type DemoCondition = (typeof CONDITIONS)[number];

/** A listing of the demo catalogue; `priceMinor` is cents for USD and yen for JPY, of one unit with shipping. */
export interface DemoListing {
  readonly seller: DemoSeller;
  readonly title: string;
  readonly description: string;
  readonly categoryId: string;
  readonly brand: string;
  readonly condition: DemoCondition;
  readonly currency: "USD" | "JPY";
  readonly priceMinor: number;
  readonly units: number;
}

// Each listing is two lines: category | brand | condition | minor units | units | title, then the description.
const offers: Readonly<Record<DemoSeller, string>> = {
  ada: `
smartphones | Apple | VERY_GOOD | 31900 | 1 | iPhone 13 128 GB Midnight, unlocked
Battery health is 87 %. Always in a case; one hairline scratch near the speaker that you only see with the screen off.
smartphones | Google | LIKE_NEW | 28500 | 1 | Google Pixel 7a 128 GB Charcoal
Bought as a spare for a trip and used for two weeks. Box, cable and the unopened SIM tool are included.
smartphones | Samsung | FOR_PARTS | 6500 | 1 | Samsung Galaxy S21, cracked screen, boots fine
Dropped on concrete. Touch works only in the upper half, the mainboard and cameras are good. Factory reset and signed out.
phone-cases | Apple | NEW | 2400 | 6 | Clear MagSafe case for iPhone 15, sealed
Left over from our office upgrade. All of them are still in the wrapper.
phone-chargers | Anker | GOOD | 2900 | 1 | Anker 20,000 mAh power bank with two USB-C ports
Holds a charge like the day I bought it. The finish is scuffed from living in my backpack.
laptops | Lenovo | GOOD | 24900 | 3 | ThinkPad T480, i5, 16 GB RAM, 512 GB SSD
Three from the same lease return, all with fresh drives and clean keyboards. Lids show light wear; both batteries last about five hours.
laptops | Apple | VERY_GOOD | 62500 | 1 | MacBook Air M1 2020, 8 GB / 256 GB, Space Gray
My writing machine for three years. 141 battery cycles, no dents, comes with the original charger.
laptops | Dell | FOR_PARTS | 9900 | 1 | Dell XPS 13 9360, no display, for parts
Powers on and shows a picture on an external monitor. Hinge is broken and I gave up on ordering the panel.
desktops | HP | GOOD | 13500 | 2 | HP EliteDesk 800 G4 mini PC, i5, 16 GB
Makes a silent little home server. Wiped, with power brick, without operating system.
tablets | Apple | VERY_GOOD | 19900 | 1 | iPad 9th generation 64 GB Wi-Fi with folio
Used by my mother for crosswords. Screen has had a protector from day one.
tablets | | LIKE_NEW | 7900 | 1 | 6-inch e-reader with warm light, 32 GB
I found out that I prefer paper after all. Read exactly one novel on it.
processors | Intel | VERY_GOOD | 11900 | 1 | Intel Core i5-12400 desktop processor
Pulled from a working build after an upgrade. With stock cooler, thermal paste cleaned off.
graphics-cards | MSI | GOOD | 18900 | 1 | MSI GeForce RTX 3060 Ventus 12 GB
Never mined on. Fans are quiet and I put on new paste last spring.
graphics-cards | ASUS | ACCEPTABLE | 7900 | 1 | ASUS Dual GTX 1660 Super 6 GB, one fan noisy
Runs every game at 1080p, but one fan rattles for the first minute. A replacement fan costs little.
motherboards | ASUS | VERY_GOOD | 8900 | 1 | ASUS TUF Gaming B550-Plus motherboard
Has the latest BIOS and comes with the I/O shield and two SATA cables. No bent pins anywhere.
memory | Corsair | LIKE_NEW | 3900 | 4 | Corsair Vengeance 16 GB DDR4-3200 kit (2 x 8)
Tested overnight without an error. Several identical kits from a classroom that went to 32 GB.
memory | Crucial | NEW | 5200 | 2 | Crucial 32 GB DDR5-5600 SO-DIMM, sealed
Ordered twice by mistake and past the return window.
power-supplies | Corsair | VERY_GOOD | 6500 | 1 | Corsair RM750x fully modular power supply
All cables in the pouch. Two years in a smoke-free home office.
cooling | Noctua | LIKE_NEW | 5900 | 1 | Noctua NH-U12S CPU cooler with AM5 bracket
Switched to a smaller case where it did not fit. All screws and the long screwdriver are in the box.
monitors | Dell | VERY_GOOD | 18900 | 1 | Dell UltraSharp U2720Q 27-inch 4K USB-C monitor
No dead pixels. One cable to the laptop does picture, data and charging, which I will miss.
monitors | LG | GOOD | 11900 | 1 | LG 29-inch ultrawide monitor, 2560 x 1080
Small scratch on the bezel, panel perfect. Stand and HDMI cable included.
keyboards | Logitech | LIKE_NEW | 7400 | 1 | Logitech MX Keys wireless keyboard, US layout
Quiet and sturdy. I moved to a split board and it sits in a drawer now.
keyboards | | GOOD | 4500 | 1 | Tenkeyless mechanical keyboard, brown switches
Key caps were washed last week. The cable is detachable and there is a spare one with it.
mice | Logitech | VERY_GOOD | 4900 | 1 | Logitech MX Master 3 mouse, graphite
The thumb rest has a slight shine, everything clicks as it should.
mice | Kensington | GOOD | 3200 | 1 | Kensington Expert trackball, wired
Saved my wrist in a hard year. Ball and bearings are freshly cleaned.
webcams | Logitech | GOOD | 2900 | 5 | Logitech C920 HD webcam
Five from a call centre that closed. Each tested in a video call, clip mounts all intact.
projectors | Epson | ACCEPTABLE | 14900 | 1 | Epson Home Cinema 1080p projector
Bright and sharp, but there is one dust spot visible in dark scenes. Lamp has 900 hours.
printers | Brother | VERY_GOOD | 9900 | 1 | Brother mono laser printer with duplex and Wi-Fi
Starter toner is about half full. Prints boarding passes and not much else since 2022.
scanners | Fujitsu | GOOD | 16900 | 1 | Fujitsu ScanSnap iX500 document scanner
Ate eleven years of my paperwork without one jam. Rollers were replaced in March.
ink-toner | HP | NEW | 3400 | 8 | HP 26A black toner cartridge, original, sealed
We sold the printer and found a shelf of these. Boxes have a little dust on them.
label-printers | Dymo | GOOD | 4900 | 1 | Dymo LabelWriter 450 with three rolls
Great for parcels. USB only, driver installs on current systems.
ssds | Samsung | NEW | 8900 | 2 | Samsung 990 EVO 1 TB NVMe SSD, sealed
Bought in a sale for a project that never happened.
hard-drives | Seagate | GOOD | 7900 | 4 | Seagate IronWolf 4 TB NAS hard drive
Surface scan is clean, about 20,000 hours each. Report can be sent before you buy.
nas | Synology | VERY_GOOD | 19900 | 1 | Synology DS220+ two-bay NAS, no disks
Memory upgraded to 6 GB. Resets fine and ships with both drive keys.
routers | TP-Link | LIKE_NEW | 5900 | 1 | TP-Link Archer AX55 Wi-Fi 6 router
Our provider sent a new one a month later. Quick setup card included.
network-switches | Netgear | VERY_GOOD | 3400 | 3 | Netgear 8-port gigabit switch, metal case
No fan, no fuss. With power supplies.
usb-cables | Anker | NEW | 1200 | 20 | Anker USB-C to USB-C cable, 6 ft, 100 W
Sealed bags from a cancelled event order. Price is for one cable.
ups | APC | GOOD | 8500 | 1 | APC Back-UPS 850 VA with new battery
Battery replaced in June, invoice included. Heavy, so it ships well padded in a double box.
headphones | Sony | VERY_GOOD | 16900 | 1 | Sony WH-1000XM4 noise-cancelling headphones, black
Pads were replaced with original ones. Case, airplane adapter and cable are all there.
servers | Dell | ACCEPTABLE | 32500 | 1 | Dell PowerEdge R630, two Xeons, 64 GB
Loud, as these are. One drive caddy is missing, rails are included.
`,
  kenji: `
film-cameras | Nikon | GOOD | 38000 | 1 | Nikon FM2 ボディ 露出計動作確認済み
シャッター全速・露出計とも動作良好です。底面に小さなアタリがあります。
film-cameras | Olympus | VERY_GOOD | 24800 | 1 | Olympus OM-1 with 50mm f/1.8, new light seals
I replaced the light seals and the foam over the prism. Meter agrees with my handheld one within half a stop.
film-cameras | Pentax | ACCEPTABLE | 9800 | 1 | PENTAX SP ボディ M42 露出計不動
露出計は動きませんが、シャッターは全速切れます。外観に使用感があります。
digital-cameras | Fujifilm | VERY_GOOD | 128000 | 1 | FUJIFILM X-T4 ボディ ブラック シャッター数 8,200
防湿庫で保管していました。元箱、充電器、予備バッテリー 1 本付きです。
digital-cameras | Ricoh | LIKE_NEW | 134000 | 1 | RICOH GR III, box and papers
Used on two weekends. No dust on the sensor, the screen has had a film since the first day.
lenses | Nikon | GOOD | 16500 | 1 | Nikkor 105mm f/2.5 AI-S portrait lens
Glass is clear, focus is smooth. The barrel shows honest brassing.
lenses | Canon | VERY_GOOD | 21500 | 1 | Canon EF 85mm F1.8 USM フィルター付き
カビ・クモリありません。AF も静かに動作します。
lenses | Minolta | FOR_PARTS | 2500 | 1 | MINOLTA MC ROKKOR 58mm F1.4 カビあり ジャンク
後玉にカビがあります。絞りとヘリコイドは動きますので、部品取りや清掃の練習にどうぞ。
camera-accessories | | NEW | 3200 | 5 | 本革カメラストラップ 手縫い 100cm
栃木レザーを使った手縫いのストラップです。使うほど色が深くなります。
mens-watches | Seiko | VERY_GOOD | 42000 | 1 | SEIKO SARB033 自動巻き 箱・保証書付き
日差プラス 6 秒ほどです。ブレスは全コマそろっています。
mens-watches | Casio | GOOD | 6800 | 1 | G-SHOCK DW-5600 カシオ スクリーンバック
ベゼルに細かい傷があります。電池は先月交換しました。
mens-watches | Citizen | GOOD | 15800 | 1 | Citizen Promaster diver, solar, 200 m
Keeps time without ever needing a battery. Bezel has two small marks at 20 and 45.
womens-watches | Seiko | VERY_GOOD | 14500 | 1 | セイコー ルキア 電波ソーラー レディース
妻が大切に使っていました。ベルトは新品に交換済みです。
anime-figures | Good Smile Company | LIKE_NEW | 5400 | 1 | ねんどろいど 初音ミク 雪ミク 開封済み
一度だけ飾りました。付属品はすべてそろっています。
anime-figures | Bandai | NEW | 7200 | 3 | S.H.Figuarts 孫悟空 新品未開封
同じものが 3 体あります。外箱の角に少しスレがあります。
anime-figures | | VERY_GOOD | 9800 | 1 | Scale figure of a swordswoman, 1/8, displayed behind glass
No sun fading and no leaning. Comes with the box and both face plates.
model-kits | Bandai | NEW | 4800 | 4 | RG 1/144 ガンダム 未組立
積みプラの整理です。袋は未開封、説明書付き。
model-kits | Tamiya | NEW | 3600 | 2 | Tamiya 1/24 sports car kit, unbuilt
Decals are crisp and the bags are sealed. The lid of the box is slightly faded.
model-trains | | GOOD | 12500 | 1 | Nゲージ 山手線 6 両セット 走行確認済み
屋内レイアウトで走行を確認しました。パンタグラフ 1 基に曲がりがあります。
pokemon-cards | Pokémon | VERY_GOOD | 18500 | 1 | ポケモンカード リザードン 旧裏面 美品
スリーブに入れて保管していました。裏面右上にわずかな白かけがあります。
pokemon-cards | Pokémon | NEW | 6800 | 6 | Japanese Pokémon booster box, sealed
Shrink wrap is intact. Bought at a card shop in Akihabara, receipt can be shown.
yugioh-cards | Konami | GOOD | 3200 | 1 | 遊戯王カード まとめ売り 約 300 枚
ノーマル中心ですが、レアも 20 枚ほど入っています。折れのあるものは除きました。
handheld-consoles | Nintendo | GOOD | 9800 | 1 | ゲームボーイアドバンス SP パールブルー
充電器付き、動作確認済みです。天面に擦り傷があります。
retro-consoles | Sega | ACCEPTABLE | 8500 | 1 | Sega Saturn, Japanese model, with two pads
Reads discs at the first try. The shell has yellowed and the back-up battery is new.
nintendo-games | Nintendo | VERY_GOOD | 3900 | 1 | ゼルダの伝説 ブレス オブ ザ ワイルド Switch
クリアしたので出品します。ケース・ソフトともきれいです。
retro-games | Nintendo | GOOD | 2200 | 1 | スーパーファミコン ソフト 5 本セット
すべて起動を確認しました。箱と説明書はありません。
comics | | GOOD | 5600 | 1 | 少年漫画 全 23 巻セット
日焼けが少しありますが、ページの破れや書き込みはありません。
teaware | | VERY_GOOD | 6400 | 1 | 南部鉄器 急須 0.6L
内側のさびはありません。茶こし付きです。
teaware | | NEW | 2800 | 10 | Hand-thrown Mino ware tea cup, indigo glaze
From a small kiln in Gifu. Each differs a little in tone.
porcelain | Noritake | VERY_GOOD | 7800 | 1 | ノリタケ オールドノリタケ 金彩 皿 5 枚
欠けやヒビはありません。金彩に少し薄れがあります。
kitchen-knives | | NEW | 12800 | 2 | 三徳包丁 165mm 青紙二号 黒打
堺の職人から直接仕入れました。箱入り未使用です。
coffee-makers | Hario | NEW | 2400 | 8 | Hario V60 ceramic dripper 02, white
New old stock from a café that closed. Measuring spoon included.
pens | Sailor | LIKE_NEW | 13500 | 1 | セーラー プロフェッショナルギア 万年筆 中字 21金
試し書き程度です。コンバーターと箱が付きます。
pens | Pilot | GOOD | 8200 | 1 | Pilot Custom 74 fountain pen, fine nib
Nib is smooth and was flushed this week. The clip has light scratches.
notebooks | Midori | NEW | 1100 | 15 | ミドリ MDノート 文庫 横罫 3 冊セット
まとめ買いした残りです。未開封でお送りします。
fishing-reels | Shimano | VERY_GOOD | 22500 | 1 | シマノ ステラ C3000 2018年モデル
淡水のみで使用し、毎回水洗いしています。替えスプール付き。
`,
  maria: `
womens-dresses | Madewell | LIKE_NEW | 4800 | 1 | Madewell linen midi dress, olive, size 8
Worn to one garden wedding and dry cleaned since. Pockets!
womens-dresses | | VERY_GOOD | 6500 | 1 | 1970s maxi dress with embroidered yoke, fits S to M
Real vintage with a metal zip. One tiny mend under the arm that nobody will find.
womens-tops | Everlane | GOOD | 2200 | 1 | Everlane silk blouse, ivory, size 6
A favorite for the office. Faint wear at the collar, priced for it.
womens-sweaters | | VERY_GOOD | 3900 | 1 | Cropped merino cardigan, mustard, medium
Warm without being bulky. No moth holes; I checked against the light.
womens-jeans | Levi's | GOOD | 3600 | 1 | Levi's 501 high-rise jeans, W28 L30
Broken in the right way. Hems were taken up by an inch and can be let down.
womens-skirts | Zara | LIKE_NEW | 1900 | 1 | Zara pleated satin skirt, emerald, size S
Tried on twice, worn never. Elastic waist.
womens-coats | Burberry | GOOD | 32500 | 1 | Burberry trench coat, honey, US 8
My aunt bought it in London in the nineties. Belt and liner are with it, one button was replaced with a matching one.
womens-activewear | Lululemon | VERY_GOOD | 4200 | 1 | Lululemon Align leggings, black, size 6
No pilling. Washed cold and never in the dryer.
womens-swimwear | | NEW | 2600 | 3 | One-piece swimsuit with low back, navy, with tags
Same suit in S, M and L: tell me your size after you buy.
womens-boots | Blundstone | GOOD | 7900 | 1 | Blundstone Chelsea boots, rustic brown, women's 8
Lots of walking left in them. Freshly waxed.
womens-heels | | VERY_GOOD | 4400 | 1 | Block-heel suede pumps, wine red, size 38
Worn to two parties, soles show it, uppers do not.
womens-sandals | Birkenstock | ACCEPTABLE | 2900 | 1 | Birkenstock Arizona, size 39, well loved
The footbed has taken my shape and might take yours. Straps and buckles are solid.
womens-sneakers | Converse | GOOD | 2700 | 1 | Converse Chuck 70 high-tops, parchment, women's 7.5
Canvas cleaned, new laces. Small ink dot inside the left tongue.
handbags | Coach | VERY_GOOD | 11900 | 1 | Coach Willis bag in burgundy leather
Hardware is bright and the lining has no stains. It smells like good leather still.
handbags | Kate Spade | LIKE_NEW | 8900 | 1 | Kate Spade medium tote, pale pink
A gift that is not my color. Dust bag included.
handbags | Dooney & Bourke | GOOD | 6900 | 1 | Vintage Dooney & Bourke drawstring bag
Corners are darker than the rest, strap is strong. Holds more than one would think.
womens-wallets | Michael Kors | VERY_GOOD | 3400 | 1 | Michael Kors zip wallet, black saffiano
Zip glides. A shallow scratch on the back is the only flaw.
scarves | | NEW | 2400 | 7 | Hand-rolled cotton scarf, block print
My cousin prints these. Every piece is a bit different, colors run from rust to teal.
womens-sunglasses | Ray-Ban | GOOD | 6400 | 1 | Ray-Ban Wayfarer, tortoise, with case
Lenses are free of scratches; I had the arms tightened.
necklaces | Tiffany & Co. | VERY_GOOD | 18500 | 1 | Tiffany sterling heart tag necklace, 16 inch
Polished and ready to give. Pouch but no box.
earrings | | NEW | 3200 | 4 | Freshwater pearl drop earrings, gold-filled hooks
Light enough for the whole day. They come on a card in a small box.
rings | | VERY_GOOD | 21500 | 1 | 14k gold signet ring, blank face, size 6
Estate piece, hallmarked. The blank face is waiting for your initials.
womens-watches | Fossil | GOOD | 4500 | 1 | Fossil rose-gold watch with leather strap
New battery in September. Strap is creased at the second hole.
lip-makeup | Dior | NEW | 2900 | 2 | Dior Addict lip glow, sealed
From a gift set with a shade that I already had.
eye-makeup | | NEW | 1800 | 5 | Twelve-shade eyeshadow palette, warm neutrals
Unopened, best before date is next year.
skin-care | La Mer | NEW | 14900 | 1 | La Mer moisturizing cream 1 oz, sealed
Duty-free purchase; my skin does not agree with the brand. Cellophane is intact.
skin-care | Aesop | NEW | 3300 | 3 | Aesop hand balm, 75 ml tube
A client's thank-you present, times three.
hair-dryers | Dyson | GOOD | 19900 | 1 | Dyson Supersonic hair dryer with four nozzles
Filter cleaned every month. A few scuffs on the handle.
womens-fragrance | Chanel | LIKE_NEW | 9500 | 1 | Chanel No. 5 eau de parfum, 50 ml, about 95 % full
Sprayed four times. Stored in its box in the dark.
cookware | Le Creuset | VERY_GOOD | 18900 | 1 | Le Creuset 5.5 qt Dutch oven, flame orange
Enamel inside is pale and smooth, two small marks on the bottom outside. Weighs what it should.
blenders | KitchenAid | GOOD | 17900 | 1 | KitchenAid Artisan stand mixer, pistachio
Three attachments and the glass bowl. It has made a hundred birthday cakes and wants to make more.
dinnerware | Wedgwood | VERY_GOOD | 14500 | 1 | Wedgwood white bone china, service for six
Thirty pieces, no chips, no cutlery marks. Packed by someone who has shipped china before.
blankets | | LIKE_NEW | 5400 | 1 | Alpaca throw, herringbone, cream and gray
Lay on the guest bed for show. No pets in that room.
bed-linen | | NEW | 6900 | 2 | Washed linen duvet set, queen, terracotta
Bought for a room that was then painted green. Duvet cover and two shams.
lamps | | GOOD | 4900 | 1 | Brass pharmacy floor lamp, adjustable
Rewired with a new plug and switch. Patina left as it was.
handmade-jewelry | | NEW | 3800 | 5 | Hammered copper cuff, made by me
Each one is forged by hand and waxed, so it will not turn your wrist green in a week.
handmade-bags | | NEW | 5500 | 3 | Quilted market bag from vintage curtains
Lined, with an inside pocket. Washes at 86 F.
quilts | | NEW | 24000 | 1 | Log cabin quilt, twin size, hand-tied
Took my daughter and me a winter. Cotton top, wool batting.
handmade-soap | | NEW | 900 | 20 | Goat milk and oatmeal soap bar
Cured for six weeks, unscented. About four ounces each.
candles | | NEW | 1600 | 12 | Beeswax pillar candle, 6 inch
Poured from our neighbor's wax. Burns for around forty hours.
`,
  noor: `
girls-clothing | | VERY_GOOD | 2400 | 1 | Bundle of girls' summer dresses, size 6, seven pieces
My daughter grew three inches in one spring. Two have tiny paint flecks, the rest are like new.
boys-clothing | Patagonia | GOOD | 3400 | 1 | Patagonia kids' fleece jacket, size 10, blue
Survived a whole school year of recess. Name label inside is covered with a patch.
baby-clothing | | LIKE_NEW | 1900 | 1 | Twelve newborn onesies, organic cotton
He skipped this size nearly entirely. Washed with unscented soap.
kids-shoes | Crocs | GOOD | 1400 | 1 | Crocs for kids, size 12, green with dinosaur charms
Soles are fine, the charms are loved.
kids-coats | Columbia | VERY_GOOD | 3900 | 1 | Columbia snowsuit, toddler 3T, purple
One winter of careful sledding. Zips and cuffs are perfect.
strollers | Bugaboo | GOOD | 28900 | 1 | Bugaboo Fox with bassinet and rain cover
Tires are puncture-proof, fabrics washed. The handle grip has a small tear.
strollers | UPPAbaby | ACCEPTABLE | 17900 | 1 | UPPAbaby Vista 2018, faded canopy
It has lived on a sunny porch, and the canopy tells. Frame, wheels and brakes are sound.
baby-carriers | Ergobaby | VERY_GOOD | 5900 | 1 | Ergobaby Omni 360 carrier, pearl gray
Used with our second only. Manual and infant insert included.
baby-carriers | BabyBjörn | GOOD | 4500 | 1 | BabyBjörn Mini carrier, black mesh
The easiest one for the first months. Clean, from a home without smokers.
baby-monitors | Philips | VERY_GOOD | 6400 | 1 | Philips Avent video baby monitor
Picture is clear through three walls. Both power supplies are there.
high-chairs | | GOOD | 7900 | 1 | Wooden grow-along high chair with tray
Marks of a fork in the tray, structure rock solid. Comes flat with the hex key.
breast-pumps | | NEW | 8900 | 1 | Wearable breast pump, unopened
Insurance sent two. Seal is intact.
baby-bottles | Avent | LIKE_NEW | 1800 | 2 | Avent glass bottles, set of four
Sterilized; teats are new in the bag.
school-backpacks | Herschel | GOOD | 2900 | 1 | Herschel Settlement backpack, navy
Zippers run well, bottom corner is a bit scuffed.
lunch-boxes | Thermos | NEW | 1700 | 4 | Thermos kids' food jar with folding spoon
Party favors that I over-ordered.
building-sets | LEGO | VERY_GOOD | 4900 | 1 | LEGO City train set, complete with manual
Every piece counted twice. Box is gone, the train runs.
building-sets | LEGO | GOOD | 6500 | 1 | Eight pounds of mixed LEGO bricks
Washed in a net bag and sorted for other brands. A few wheels have teeth marks.
dolls | Sylvanian Families | VERY_GOOD | 3600 | 1 | Sylvanian Families bakery with rabbit family
All the little breads are there, which is a miracle. One apron has been hand-washed.
dolls | Barbie | ACCEPTABLE | 1900 | 1 | Box of eight Barbie dolls and a suitcase of clothes
Hair has seen scissors in two cases. Good for a child who likes to style.
wooden-toys | | GOOD | 3200 | 1 | Wooden train track, 60 pieces, with bridge
Fits the usual brands. Magnets on the engines are strong.
learning-toys | Fisher-Price | GOOD | 2200 | 1 | Fisher-Price farm with animal sounds
New batteries, all six animals. The rooster is loud, I warn you.
board-games | Hasbro | GOOD | 1500 | 1 | Classic property-trading board game, 1980s edition
One house is a button now, otherwise complete. Box corners are taped.
jigsaw-puzzles | Ravensburger | LIKE_NEW | 1600 | 3 | Ravensburger 1000-piece puzzle, complete
Done once on a snow day and counted when put back. Three different motifs.
yarn | | NEW | 2800 | 1 | Destash: ten skeins of merino, sea colors
Bought for a blanket I will not knit. All the same dye lot.
art-supplies | Crayola | NEW | 900 | 12 | Crayola washable paint set, six colors
From my closed after-school class. Sealed.
childrens-books | | GOOD | 2400 | 1 | Twenty picture books for bedtime
Mixed hardcovers and paperbacks for ages 3 to 6. Some names on the first page.
fiction | | VERY_GOOD | 1200 | 1 | Five literary novels, paperback, prize winners
Read once each. No creased spines because I am that person.
textbooks | | ACCEPTABLE | 3500 | 1 | Organic chemistry textbook, 8th edition
Highlighted through chapter nine, and then I changed majors. Binding holds.
cookbooks | | VERY_GOOD | 1900 | 1 | Middle Eastern home cooking, hardcover, illustrated
A few good recipes are marked with a pencil dot. No stains, amazingly.
nonfiction | | GOOD | 1000 | 2 | Birds of the Great Lakes, pocket field guide
Two copies, as each of us owned one before we married.
dog-beds | | NEW | 4900 | 2 | Orthopedic dog bed, large, washable cover
Our hound prefers the sofa. Never slept on.
dog-collars | | LIKE_NEW | 1500 | 1 | Leather dog collar, medium, brass buckle
Worn a week before she outgrew it. Fits necks of 13 to 16 inches.
dog-toys | Kong | NEW | 1100 | 6 | Kong classic rubber toy, medium
Bulk pack opened for one. Indestructible so far.
cat-trees | | GOOD | 5900 | 1 | Five-foot cat tree with two caves
One post is scratched the way a post should be. Comes in two parcels.
aquariums | | GOOD | 7500 | 1 | 20-gallon aquarium kit with filter and LED
Leak tested on the porch for a weekend. Includes gravel, without fish.
small-pet-supplies | | VERY_GOOD | 3400 | 1 | Two-level rabbit hutch panels and ramp
Scrubbed and dried in the sun. Chew-proof so far.
office-chairs | Herman Miller | GOOD | 34900 | 1 | Herman Miller Aeron, size B, graphite
Office closing. Mesh has no tears, one arm pad is worn.
calculators | Texas Instruments | VERY_GOOD | 5200 | 2 | Texas Instruments TI-84 Plus graphing calculator
Both tested, with slide covers and fresh batteries. My twins have graduated.
shipping-supplies | | NEW | 1500 | 15 | Bundle of 50 kraft bubble mailers, 6 x 10
I closed my little print shop. Self-seal strips are all good.
planters | | LIKE_NEW | 2900 | 4 | Glazed ceramic planter with saucer, 10 inch
Stood indoors only. Tell me if you want the blue or the sand one.
`,
  sam: `
golf-clubs | Callaway | GOOD | 23500 | 1 | Callaway Strata irons 5-PW, steel, regular flex
Grooves are good, grips replaced last summer. Bag chatter as you would expect.
golf-clubs | TaylorMade | VERY_GOOD | 18900 | 1 | TaylorMade M4 driver 10.5, stiff, with headcover
Hits far, though not straight in my hands. No sky marks.
golf-clubs | Titleist | ACCEPTABLE | 6900 | 1 | Titleist Vokey wedge, 56 degrees, rusty finish
Meant to rust and it does. Face is worn but still checks on the green.
golf-balls | Titleist | GOOD | 1900 | 10 | Titleist Pro V1, dozen, lake balls, washed
Found, cleaned and sorted by me. Some player marks.
golf-bags | | GOOD | 6400 | 1 | Stand bag with dual straps, charcoal
All zips work; rain hood never used.
tennis-rackets | Wilson | VERY_GOOD | 9900 | 1 | Wilson Blade 98, grip 3, fresh strings
Strung last month at 52 lb. One paint chip at 2 o'clock.
badminton | Yonex | LIKE_NEW | 7400 | 1 | Yonex Astrox racket with cover
Shoulder surgery ended my season. Barely hit with.
baseball-gear | Wilson | GOOD | 8500 | 1 | Wilson A2000 infield glove, 11.5 inch, right-hand throw
Perfect pocket. Laces are original and strong.
basketball-gear | | NEW | 2900 | 5 | Indoor-outdoor basketball, size 7
Left from a youth camp. Ships deflated.
soccer-gear | Adidas | GOOD | 3600 | 1 | Adidas firm-ground soccer cleats, men's 10
Two seasons of grass. Studs are even.
hockey-gear | | ACCEPTABLE | 4900 | 1 | Bag of youth hockey gear, ages 9 to 11
Shin pads, elbow pads, helmet and gloves. It has been aired, I promise.
weights | | GOOD | 14900 | 1 | Adjustable dumbbell pair, 5 to 52 lb
Dials click cleanly. Pick your legs up when lifting the box.
exercise-machines | | VERY_GOOD | 41500 | 1 | Rowing machine with air resistance, folds in two
Under 200,000 meters on the counter, which says it all.
yoga | Lululemon | VERY_GOOD | 4400 | 1 | Lululemon reversible yoga mat, 5 mm
Grippy and clean. Small nick in one corner.
surfing | | GOOD | 27500 | 1 | Foam longboard 8 ft with leash and fins
Great to learn on. Two sealed dings near the tail.
skis | Salomon | GOOD | 19900 | 1 | Salomon QST skis 174 cm with bindings
Edges sharpened, bases waxed. Top sheets have scratches from the lift line.
snowboards | Burton | VERY_GOOD | 22500 | 1 | Burton Custom 158 snowboard, no bindings
Ten days on snow. No core shots.
tents | REI | GOOD | 14900 | 1 | REI Half Dome 2 tent with footprint
Seams resealed this year. One pole section was replaced.
tents | MSR | VERY_GOOD | 27900 | 1 | MSR Hubba Hubba two-person tent
About fifteen nights out. Stored loose and dry.
sleeping-bags | Marmot | GOOD | 11900 | 1 | Marmot down sleeping bag, 15 F, regular
Washed with down soap and lofty again. Zip is smooth.
sleeping-bags | Therm-a-Rest | LIKE_NEW | 9900 | 1 | Therm-a-Rest NeoAir pad, regular
Two nights, no leaks. Patch kit unused.
camp-stoves | Coleman | GOOD | 3900 | 1 | Coleman two-burner propane stove
Grease cleaned off, both burners light. Latch is a little bent.
coolers | Yeti | VERY_GOOD | 18500 | 1 | Yeti Tundra 45 cooler, tan
Still keeps ice for four days. One sticker that came with it stays.
hiking-packs | Osprey | GOOD | 11500 | 1 | Osprey Atmos 65 pack, size M
Carried the long trail and my back is grateful. Hip belt pocket has a mended seam.
lanterns | Black Diamond | NEW | 3400 | 3 | Black Diamond headlamp, 400 lumens
Won as a raffle prize, three of them, what luck.
hiking-boots | Salomon | GOOD | 6900 | 1 | Salomon Quest hiking boots, men's 10.5
About 150 miles. Waterproofing is intact.
mountain-bikes | Trek | GOOD | 68500 | 1 | Trek Marlin 7, 29-inch wheels, size L
New chain and cassette in May. Ships partly taken apart in a bike box.
road-bikes | Specialized | VERY_GOOD | 92500 | 1 | Specialized Allez, 56 cm, hydraulic discs
Garage queen with 600 miles. One scratch on the chain stay under a protector.
bike-parts | Shimano | NEW | 6200 | 2 | Shimano Deore 12-speed rear derailleur
Take-offs from new bikes, never ridden.
fishing-rods | Daiwa | GOOD | 5900 | 1 | Daiwa spinning rod 7 ft medium, with reel
Good for bass. Cork is darkened, guides are smooth.
knives-tools | Leatherman | VERY_GOOD | 7900 | 1 | Leatherman Wave multi-tool with sheath
Blades cleaned and oiled. Carried, hardly used.
mens-coats | Carhartt | ACCEPTABLE | 5900 | 1 | Carhartt Detroit jacket, size L, faded brown
Real work wear: paint on one cuff, lining torn at the pocket. Zip is strong.
mens-boots | Timberland | GOOD | 6400 | 1 | Timberland 6-inch boots, wheat, men's 11
New laces, heel wear even. Toes have dark spots.
mens-shirts | L.L.Bean | VERY_GOOD | 2600 | 1 | L.L.Bean chamois shirt, forest green, XL
Softer than new. Shrunk a touch, more like L now.
brakes | Bosch | NEW | 4900 | 2 | Bosch ceramic brake pads, front set for midsize sedan
Sold the car before I got around to it. Part number is on the box; ask for it before buying.
car-lighting | | NEW | 2900 | 4 | LED license plate light, pair
Plug and play on most pickups. Spare stock from my shop.
roof-racks | Thule | GOOD | 15900 | 1 | Thule crossbars 50 inch with feet and locks
Both keys. Some fading, no rust.
drills | DeWalt | GOOD | 8900 | 1 | DeWalt 20 V drill and impact driver set
Two batteries, charger and bag. Chuck runs true.
saws | Makita | VERY_GOOD | 10900 | 1 | Makita circular saw, 7-1/4 inch, corded
Built one deck with it. New blade mounted.
trimmers-chainsaws | Stihl | FOR_PARTS | 7500 | 1 | Stihl MS 170 chainsaw, does not start
Has spark, likely the carburetor. Bar and chain are nearly new.
`,
  tess: `
electric-guitars | Fender | VERY_GOOD | 52500 | 1 | Fender Player Stratocaster, sunburst, maple neck
Low action, no buzz. One ding behind the strap button; ships in a padded gig bag.
electric-guitars | Gibson | GOOD | 118000 | 1 | Gibson Les Paul Studio 2012, wine red
Frets at eighty percent. Case included, neck never broken.
electric-guitars | Ibanez | FOR_PARTS | 9500 | 1 | Ibanez RG project guitar, no pickups
Body and neck are straight, hardware in a bag. A winter project that I did not start.
acoustic-guitars | Yamaha | GOOD | 14500 | 1 | Yamaha FG800 acoustic guitar with new strings
Open, warm sound. Pick wear around the sound hole.
bass-guitars | Fender | GOOD | 48500 | 1 | Fender Jazz Bass, made in Mexico, black
Played in a wedding band for years. Electronics are quiet, finish is not perfect.
guitar-amps | Fender | VERY_GOOD | 39900 | 1 | Fender Blues Junior tube amplifier
Tubes changed last year. The reverb tank is original.
effects-pedals | Boss | GOOD | 6900 | 1 | Boss DD-7 digital delay pedal
Velcro on the bottom. Every mode works.
effects-pedals | | LIKE_NEW | 9900 | 2 | Boutique fuzz pedal, hand-wired
I bought the pair for a stereo idea that was not good. With boxes.
synthesizers | Korg | VERY_GOOD | 34500 | 1 | Korg Minilogue analog synthesizer
All sliders firm. Adapter and a USB stick with my patches included.
synthesizers | Roland | GOOD | 29900 | 1 | Roland JU-06A module with keyboard dock
Light rack rash. Sounds like 1984 on request.
keyboards-pianos | Yamaha | GOOD | 36500 | 1 | Yamaha P-125 digital piano with stand
Weighted keys, none noisy. Two coffee rings on top that wiped off nearly all the way.
drums | | ACCEPTABLE | 24900 | 1 | Four-piece drum kit shells, 1990s, red sparkle
Heads are dead and one lug is missing. Shells are round and loud.
percussion | Meinl | VERY_GOOD | 11900 | 1 | Meinl cajon with padded bag
Snare wires adjusted. Played at six open mics.
harmonicas | | NEW | 3400 | 5 | Diatonic harmonica in C, ten holes
From the shop I used to run. Sealed for hygiene, so no returns once opened.
violins | | GOOD | 32500 | 1 | Full-size student violin, German workshop, about 1960
Set up by a luthier this spring. Bow has been rehaired.
microphones | Shure | VERY_GOOD | 6900 | 3 | Shure SM58 vocal microphone
Grilles straightened and washed. They survive everything.
audio-interfaces | Behringer | GOOD | 3900 | 1 | Behringer two-channel USB audio interface
Simple and it works. Gain knob is a little scratchy.
dj-gear | Pioneer | GOOD | 18900 | 1 | Pioneer DJ controller, two channels
Jog wheels are tight. One rubber foot is missing.
turntables | Technics | GOOD | 58500 | 1 | Technics SL-1200 MK2 turntable, silver
Pitch locks at zero. Dust cover has scratches, new cartridge mounted.
turntables | Audio-Technica | LIKE_NEW | 17500 | 1 | Audio-Technica LP120 turntable, black
Bought new for a shelf that was too shallow. Ten records played.
hifi | Denon | VERY_GOOD | 22500 | 1 | Denon stereo receiver with remote, 80 W
Every input tested. Runs cool.
headphones | Sennheiser | GOOD | 11900 | 1 | Sennheiser HD 600 open headphones
New ear pads and cable. Paint on the headband is chipped, as on all of them.
vinyl | | VERY_GOOD | 4500 | 1 | Jazz quartet LP, 1959 pressing, deep groove
Plays clean with faint ticks between the songs. Sleeve has a split at the bottom seam.
vinyl | | GOOD | 5900 | 1 | Crate of 25 soul and funk 45s
Jukebox stock, all playable. Labels with writing on a few.
vinyl | | NEW | 2600 | 8 | Nashville indie band debut LP, sealed, blue vinyl
We pressed three hundred. That band was mine.
cassettes | | ACCEPTABLE | 2200 | 1 | Thirty mixed cassettes from the eighties
Rock and country mostly. A few cases are cracked.
sheet-music | | GOOD | 1400 | 1 | Piano sheet music lot, two pounds
Popular songs of the 1940s with lovely covers. Corners are soft.
blu-ray | | VERY_GOOD | 2900 | 1 | Samurai classics on Blu-ray, five discs
Restored editions, all discs without scratches. Region A.
magazines | | GOOD | 3800 | 1 | Forty issues of a guitar magazine, 1994 to 1998
Some tabs are marked. The posters are still inside!
baseball-cards | Topps | GOOD | 7500 | 1 | 1987 Topps baseball, complete set in binder
Hand-collated by my dad. A few soft corners, stars are clean.
basketball-cards | | VERY_GOOD | 12900 | 1 | Rookie guard basketball card, 2003, in hard case
Centered better than most. Ungraded, corners sharp to my eye.
magic-cards | Wizards of the Coast | ACCEPTABLE | 16500 | 1 | Magic dual land, played, revised edition
Edges are white and there is a light crease. Tournament legal in a sleeve.
magic-cards | Wizards of the Coast | NEW | 13900 | 2 | Magic draft booster box, sealed
Stored upright in a closet. Shipped in a box within a box.
card-sleeves | Ultra Pro | NEW | 800 | 20 | Ultra Pro card sleeves, pack of 100, black
Leftovers from our game night. Price is for one pack.
home-consoles | Sony | GOOD | 24900 | 1 | PlayStation 5 disc edition with one controller
Cleaned inside, runs quietly. Original box with the stand.
handheld-consoles | Nintendo | VERY_GOOD | 19900 | 1 | Nintendo Switch OLED, white, with dock
No drift in the sticks. Glass protector has been on since the first day.
playstation-games | Sony | LIKE_NEW | 2800 | 1 | Open-world samurai adventure for PlayStation 4
Finished the story twice. Disc without a mark.
controllers | Xbox | ACCEPTABLE | 2200 | 2 | Xbox wireless controller, white, left stick drifts a bit
Fine for menus and racing games. Or open it and fit a new stick.
movie-posters | | GOOD | 8900 | 1 | Original one-sheet movie poster, 1978, folded
Fold lines and one pin hole in each corner. Colors are strong.
vintage-electronics | | FOR_PARTS | 5400 | 1 | 1962 transistor radio, hums but plays no station
Case is lovely turquoise, no cracks. For a tinkerer or a shelf.
`,
};

/** The demo catalogue: the listings of each seller in a fixed order, so that `<seller>-<position>` can serve as an external id. */
export const listings: readonly DemoListing[] = accounts
  .filter((each) => each.role === "seller")
  .flatMap((each) => listingsOf(each.name as DemoSeller, each.currency));

function listingsOf(name: DemoSeller, currency: "USD" | "JPY"): DemoListing[] {
  const lines = offers[name].trim().split("\n");
  return lines.flatMap((head, index) => (index % 2 === 0 ? [listing(name, currency, head, lines[index + 1])] : []));
}

function listing(name: DemoSeller, currency: "USD" | "JPY", head: string, description: string | undefined): DemoListing {
  const [categoryId, brand, grade, price, units, title, ...rest] = head.split("|").map((part) => part.trim());
  const condition = CONDITIONS.find((each) => each === grade);
  if (!categoryId || brand === undefined || !condition || !title || rest.length > 0 || !description || description.includes("|")) {
    throw new Error(`The demo listing of ${name} is not two lines of the described form: ${head}`);
  }
  return {
    seller: name,
    title,
    description,
    categoryId,
    brand,
    condition,
    currency,
    priceMinor: Number(price),
    units: Number(units),
  };
}
