/** One node of the category tree as it is stored: `parentId` is empty for a root. Ids match `^[a-z0-9-]{2,64}$` and never change. */
export interface CategoryData {
  readonly categoryId: string;
  readonly parentId: string;
  readonly name: string;
}

// Each node is its id, a space and its name. Indentation by two spaces gives the level; siblings without children share a line.
const outline = `
women Women
  womens-clothing Women's clothing
    womens-dresses Dresses; womens-tops Tops & blouses; womens-sweaters Sweaters; womens-jeans Jeans; womens-pants Pants & leggings
    womens-skirts Skirts; womens-coats Coats & jackets; womens-activewear Activewear; womens-swimwear Swimwear; womens-sleepwear Sleepwear
  womens-shoes Women's shoes
    womens-boots Boots; womens-heels Heels; womens-flats Flats & loafers; womens-sandals Sandals; womens-sneakers Sneakers
  womens-accessories Women's accessories
    handbags Handbags; womens-wallets Wallets; scarves Scarves & wraps; womens-belts Belts; womens-hats Hats; womens-sunglasses Sunglasses
  womens-jewelry Women's jewelry
    necklaces Necklaces; earrings Earrings; bracelets Bracelets; rings Rings; womens-watches Women's watches
men Men
  mens-clothing Men's clothing
    mens-shirts Shirts; mens-t-shirts T-shirts; mens-sweaters Sweaters & hoodies; mens-jeans Jeans; mens-pants Pants & shorts
    mens-coats Coats & jackets; mens-suits Suits & blazers; mens-activewear Activewear
  mens-shoes Men's shoes
    mens-boots Boots; mens-sneakers Sneakers; mens-dress-shoes Dress shoes; mens-sandals Sandals
  mens-accessories Men's accessories
    mens-watches Men's watches; mens-wallets Wallets; mens-belts Belts; mens-hats Hats & caps; mens-ties Ties; mens-bags Bags & backpacks
    mens-sunglasses Sunglasses
kids-baby Kids & baby
  kids-clothing Kids' clothing
    girls-clothing Girls' clothing; boys-clothing Boys' clothing; baby-clothing Baby clothing; kids-shoes Kids' shoes
    kids-coats Kids' coats & snowsuits
  baby-gear Baby gear
    strollers Strollers; car-seats Car seats; baby-carriers Carriers & wraps; baby-monitors Baby monitors; high-chairs High chairs
  nursery Nursery & feeding
    cribs Cribs & bassinets; baby-bedding Baby bedding; baby-bottles Bottles & feeding; breast-pumps Breast pumps; diapering Diapering & bath
  school School
    school-backpacks School backpacks; lunch-boxes Lunch boxes
beauty Beauty & health
  makeup Makeup
    face-makeup Face; eye-makeup Eyes; lip-makeup Lips; makeup-brushes Brushes & tools
  skin-hair Skin & hair
    skin-care Skin care; hair-care Hair care; hair-dryers Hair dryers & stylers; shavers Shavers & trimmers
  fragrance-nails Fragrance & nails
    womens-fragrance Women's fragrance; mens-fragrance Men's fragrance; nail-care Nail care
  wellness Wellness
    massagers Massagers; oral-care Oral care; blood-pressure-monitors Blood pressure monitors; bathroom-scales Bathroom scales
home Home
  kitchen Kitchen
    cookware Cookware; bakeware Bakeware; kitchen-knives Knives; coffee-makers Coffee & espresso makers; kettles Kettles & toasters
    blenders Blenders & mixers; air-fryers Air fryers & cookers; food-storage Food storage & water bottles
  dining Dining
    dinnerware Dinnerware; glassware Glassware; cutlery Cutlery; teaware Tea & sake ware
  furniture Furniture
    chairs Chairs; tables Tables & desks; bookcases Bookcases & shelves; sofas Sofas; beds Beds & mattresses
  decor Decor
    lamps Lamps; rugs Rugs; wall-art Wall art; mirrors Mirrors; vases Vases; candles Candles
  bed-bath Bed & bath
    bed-linen Bed linen; blankets Blankets & throws; towels Towels
  appliances Appliances
    vacuums Vacuums; irons Irons & steamers; heaters-fans Heaters & fans; air-purifiers Air purifiers; sewing-machines Sewing machines
electronics Electronics
  phones Phones
    smartphones Smartphones; phone-cases Cases & protectors; phone-chargers Chargers & power banks; landline-phones Landline phones
  computers Computers
    laptops Laptops; desktops Desktops; tablets Tablets & e-readers; servers Servers; laptop-bags Laptop bags & docks
  computer-components Components
    processors Processors; graphics-cards Graphics cards; motherboards Motherboards; memory Memory; power-supplies Power supplies
    cooling Cases & cooling
  computer-peripherals Peripherals
    monitors Monitors; keyboards Keyboards; mice Mice & trackballs; webcams Webcams; projectors Projectors
  printing Printing
    printers Printers; scanners Scanners; ink-toner Ink & toner; label-printers Label printers
  data-storage Storage
    ssds Solid-state drives; hard-drives Hard drives; memory-cards Memory cards & USB sticks; nas Network storage
  networking Networking
    routers Routers & mesh Wi-Fi; network-switches Switches; network-adapters Adapters & modems
  cables-power Cables & power
    usb-cables USB cables; video-cables Video cables; network-cables Network cables; ups Surge protectors & UPS; batteries Batteries
  cameras Cameras
    digital-cameras Digital cameras; film-cameras Film cameras; lenses Lenses; tripods Tripods; camera-accessories Camera bags & accessories
    drones Drones & action cameras
  audio Audio
    headphones Headphones; bluetooth-speakers Portable speakers; hifi Hi-fi & receivers; turntables Turntables; microphones Microphones
  tv-video TV & video
    televisions Televisions; streaming-devices Streaming players; disc-players Disc players; remote-controls Remotes & mounts
  wearables Wearables & smart home
    smartwatches Smartwatches; fitness-trackers Fitness trackers; smart-speakers Smart speakers; security-cameras Security cameras
  more-electronics More electronics
    other-electronics Other electronics
video-games Video games
  consoles Consoles
    home-consoles Home consoles; handheld-consoles Handheld consoles; retro-consoles Retro consoles
  games Games
    playstation-games PlayStation games; nintendo-games Nintendo games; xbox-games Xbox games; pc-games PC games; retro-games Retro games
  game-accessories Gaming accessories
    controllers Controllers; gaming-headsets Gaming headsets; console-cases Console cases & docks; vr-headsets VR headsets
toys-hobbies Toys & hobbies
  toys Toys
    building-sets Building sets; dolls Dolls & dollhouses; plush Plush; toy-vehicles Toy vehicles; wooden-toys Wooden toys
    outdoor-toys Outdoor toys; learning-toys Learning toys
  games-puzzles Games & puzzles
    board-games Board games; jigsaw-puzzles Jigsaw puzzles; card-games Card games; roleplaying-games Role-playing games
  models Models & figures
    action-figures Action figures; anime-figures Anime figures; model-kits Model kits; model-trains Model trains; rc-vehicles Radio control
  crafts Crafts
    yarn Yarn & knitting; sewing-fabric Sewing & fabric; art-supplies Art supplies; beads Beads & jewelry making; paper-crafts Paper crafts
trading-cards Trading cards
  collectible-card-games Collectible card games
    pokemon-cards Pokémon cards; magic-cards Magic cards; yugioh-cards Yu-Gi-Oh! cards; other-card-games Other card games
  sports-cards Sports cards
    baseball-cards Baseball cards; basketball-cards Basketball cards; football-cards Football cards; soccer-cards Soccer cards
    hockey-cards Hockey cards
  card-supplies Card supplies
    card-sleeves Sleeves & binders; card-storage Boxes & display
sporting-goods Sporting goods
  golf Golf
    golf-clubs Golf clubs; golf-balls Golf balls; golf-bags Golf bags & carts; golf-accessories Golf accessories
  racket-sports Racket sports
    tennis-rackets Tennis rackets; badminton Badminton; table-tennis Table tennis; pickleball Pickleball
  team-sports Team sports
    baseball-gear Baseball & softball; basketball-gear Basketball; soccer-gear Soccer; football-gear Football; hockey-gear Hockey
    lacrosse-gear Lacrosse
  fitness Fitness
    weights Weights; yoga Yoga & pilates; exercise-machines Exercise machines; boxing Boxing & martial arts; running-gear Running gear
  water-winter Water & winter sports
    surfing Surfing & paddling; swimming Swimming; diving Diving; skis Skis; snowboards Snowboards; ice-skates Ice skates
outdoors Outdoors
  camping Camping
    tents Tents; sleeping-bags Sleeping bags & pads; camp-stoves Camp stoves & kitchen; hiking-packs Packs; lanterns Lanterns & headlamps
    coolers Coolers; hiking-boots Hiking boots
  cycling Cycling
    road-bikes Road bikes; mountain-bikes Mountain bikes; city-bikes City & electric bikes; bike-parts Bike parts
    bike-helmets Bike helmets; bike-accessories Bike accessories
  fishing Fishing
    fishing-rods Rods; fishing-reels Reels; fishing-lures Lures & tackle
  climbing-optics Climbing & optics
    climbing-gear Climbing gear; binoculars Binoculars & scopes; skateboards Skateboards & scooters; knives-tools Pocket knives & multi-tools
musical-instruments Musical instruments
  guitars Guitars
    electric-guitars Electric guitars; acoustic-guitars Acoustic guitars; bass-guitars Basses; guitar-amps Amplifiers; effects-pedals Effects pedals
    guitar-parts Guitar parts & strings; ukuleles Ukuleles
  keys-drums Keys & drums
    keyboards-pianos Keyboards & pianos; synthesizers Synthesizers; drums Drums; percussion Percussion
  orchestra Orchestra & band
    violins Violins & strings; brass Brass; woodwind Woodwind; harmonicas Harmonicas
  studio Studio
    audio-interfaces Audio interfaces; studio-monitors Studio monitors; dj-gear DJ gear
books-media Books & media
  books Books
    fiction Fiction; nonfiction Nonfiction; textbooks Textbooks; childrens-books Children's books; cookbooks Cookbooks; comics Comics & manga
    art-books Art & photography
  music Music
    vinyl Vinyl; cds CDs; cassettes Cassettes; sheet-music Sheet music
  movies Movies & TV
    blu-ray Blu-ray; dvds DVDs; vhs VHS
  magazines-maps Magazines & maps
    magazines Magazines; maps Maps & travel guides
handmade Handmade
  handmade-wear Handmade to wear
    handmade-jewelry Handmade jewelry; handmade-knits Handmade knits; handmade-bags Handmade bags
  handmade-home Handmade for the home
    pottery Pottery; quilts Quilts; woodwork Woodwork; handmade-soap Soap & candles
  handmade-gifts Handmade gifts
    cards-stationery Cards & stationery; handmade-toys Handmade toys
pets Pets
  dogs Dogs
    dog-beds Dog beds & crates; dog-collars Collars & leashes; dog-toys Dog toys; dog-clothing Dog clothing
  cats Cats
    cat-trees Cat trees & scratchers; cat-carriers Cat carriers & litter; cat-toys Cat toys
  other-pets Other pets
    aquariums Aquariums; bird-supplies Bird supplies; small-pet-supplies Small pets; reptile-supplies Reptiles
automotive Automotive
  car-parts Car parts
    brakes Brakes; engine-parts Engine parts; car-lighting Lighting; exterior-parts Exterior parts; wheels-tires Wheels & tires
  car-accessories Car accessories
    car-audio Car audio; dash-cams Dash cams & navigation; car-care Car care; roof-racks Roof racks; floor-mats Floor mats & covers
  motorcycle Motorcycle
    motorcycle-parts Motorcycle parts; motorcycle-helmets Motorcycle helmets; motorcycle-jackets Motorcycle clothing
office Office
  office-equipment Office equipment
    office-chairs Office chairs; desk-accessories Desk accessories; calculators Calculators; shredders Shredders & laminators
  office-supplies Office supplies
    pens Pens; notebooks Notebooks & planners; labels-paper Labels & paper; shipping-supplies Shipping supplies
garden Garden
  gardening Gardening
    garden-tools Garden tools; planters Planters & pots; seeds Seeds & bulbs; watering Watering; houseplants Houseplants
  outdoor-living Outdoor living
    grills Grills; patio-furniture Patio furniture; outdoor-lighting Outdoor lighting
  yard-machines Yard machines
    lawn-mowers Lawn mowers; trimmers-chainsaws Trimmers & chainsaws; pressure-washers Pressure washers
tools Tools
  power-tools Power tools
    drills Drills & drivers; saws Saws; sanders Sanders & grinders; tool-batteries Tool batteries & chargers
  hand-tools Hand tools
    wrenches Wrenches & sockets; screwdrivers Screwdrivers & pliers; woodworking-tools Woodworking; tool-storage Tool storage
  measuring-hardware Measuring & hardware
    measuring-tools Measuring & laser levels; multimeters Multimeters; plumbing-electrical Plumbing & electrical; soldering Soldering
collectibles Collectibles
  antiques Antiques & vintage
    vintage-kitchen Vintage kitchen; vintage-electronics Vintage electronics; antique-clocks Clocks; porcelain Porcelain & glass
  coins-stamps Coins & stamps
    coins Coins; banknotes Banknotes; stamps Stamps; postcards Postcards
  memorabilia Memorabilia
    sports-memorabilia Sports memorabilia; movie-posters Movie posters; pins-badges Pins & badges; advertising Advertising & signs
`;

/** The tree, parents before children; listings stand in its leaves only. What the catalog's tables are filled with at the start. */
export const categories: readonly CategoryData[] = flatten(outline);

function flatten(text: string): CategoryData[] {
  const path: string[] = [];
  return text
    .split("\n")
    .filter((line) => line !== "")
    .flatMap((line) => {
      const level = (line.length - line.trimStart().length) / 2;
      const parentId = level === 0 ? "" : (path[level - 1] ?? "");
      const nodes = line.trim().split("; ");
      return nodes.map((node) => {
        const [categoryId = "", ...words] = node.split(" ");
        path[level] = categoryId;
        return { categoryId, parentId, name: words.join(" ") };
      });
    });
}
