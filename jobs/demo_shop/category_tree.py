"""What the shop trades in: the category tree with the words, prices and makers of each leaf."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Leaf:
    """One leaf category. Prices in cents, the cheapest and the dearest; `share` is its part of items and of tastes."""

    path: str
    nouns: tuple[str, ...]
    price_low: int
    price_high: int
    grams: int
    share: int


@dataclass(frozen=True)
class Department:
    """One top category with what its leaves have in common."""

    name: str
    brands: tuple[str, ...]
    adjectives: tuple[str, ...]
    materials: tuple[str, ...]
    leaves: tuple[Leaf, ...]


COLORS: Final = (
    "Sand", "Slate", "Moss", "Ivory", "Navy", "Rust", "Charcoal", "Sage", "Plum", "Ochre", "Sky", "Black",
)  # fmt: skip

# A maker's product line; after the brand in a title.
LINES: Final = (
    "Hearth", "Aurora", "Fjord", "Meadow", "Atlas", "Nova", "Harbour", "Linden", "Summit", "Orchard", "Studio",
    "Classic", "Terra", "Breeze", "Heritage", "Pixel",
)  # fmt: skip


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _leaf(path: str, nouns: str, low: int, high: int, grams: int, share: int) -> Leaf:
    return Leaf(path, _words(nouns), low * 100, high * 100, grams, share)


DEPARTMENTS: Final = (
    Department(
        "Home",
        _words("Northfield, Casa Oliva, Lindqvist, Hearthstone, Maison Brume, Oakley & Rye"),
        _words("Hand-thrown, Matte, Rustic, Minimal, Ribbed, Glazed, Everyday, Nordic, Compact, Woven"),
        _words("Stoneware, Oak, Linen, Steel, Glass, Bamboo, Cotton"),
        (
            _leaf("Home > Kitchen > Mugs", "Mug, Espresso Cup, Tumbler", 6, 32, 350, 9),
            _leaf("Home > Kitchen > Pans", "Frying Pan, Saucepan, Casserole", 19, 140, 1800, 6),
            _leaf("Home > Kitchen > Knives", "Chef's Knife, Bread Knife, Paring Knife", 12, 120, 260, 4),
            _leaf("Home > Bedroom > Duvet covers", "Duvet Cover, Bed Set", 25, 130, 1400, 6),
            _leaf("Home > Bedroom > Pillows", "Pillow, Bolster", 14, 80, 900, 4),
            _leaf("Home > Living > Table lamps", "Table Lamp, Desk Lamp", 22, 180, 1600, 5),
            _leaf("Home > Living > Vases", "Vase, Bud Vase, Carafe", 9, 75, 800, 5),
            _leaf("Home > Living > Candles", "Candle, Candle Holder, Tealight Set", 5, 40, 420, 6),
        ),
    ),
    Department(
        "Fashion",
        _words("Aldine, Verano, Kestrel & Co, Rue Basse, Tamsin, Halden"),
        _words("Slim, Relaxed, Cropped, Classic, Printed, Striped, Tailored, Everyday, Oversized, Lined"),
        _words("Cotton, Merino, Linen, Denim, Leather, Viscose, Recycled Nylon"),
        (
            _leaf("Fashion > Women > Dresses", "Midi Dress, Wrap Dress, Shirt Dress", 29, 160, 420, 9),
            _leaf("Fashion > Women > Blouses", "Blouse, Tunic", 19, 95, 240, 7),
            _leaf("Fashion > Men > Shirts", "Shirt, Overshirt, Polo", 19, 99, 290, 8),
            _leaf("Fashion > Men > Jackets", "Jacket, Parka, Bomber", 49, 260, 980, 5),
            _leaf("Fashion > Shoes > Sneakers", "Sneaker, Trainer", 39, 170, 850, 9),
            _leaf("Fashion > Shoes > Boots", "Ankle Boot, Chelsea Boot", 59, 230, 1300, 4),
            _leaf("Fashion > Accessories > Scarves", "Scarf, Shawl", 12, 85, 180, 3),
            _leaf("Fashion > Accessories > Belts", "Belt, Woven Belt", 12, 70, 220, 2),
        ),
    ),
    Department(
        "Electronics",
        _words("Voltera, Kimura, Sonet, Brightwire, Octave, Pelion"),
        _words("Wireless, Compact, Slim, Portable, Rugged, Silent, Foldable, Fast, Backlit, Modular"),
        _words("Aluminium, Graphite, Polycarbonate, Steel, Silicone"),
        (
            _leaf("Electronics > Audio > Headphones", "Headphones, Earbuds, Headset", 19, 320, 260, 8),
            _leaf("Electronics > Audio > Speakers", "Speaker, Soundbar", 25, 400, 1500, 6),
            _leaf("Electronics > Computing > Keyboards", "Keyboard, Numeric Keypad", 19, 180, 750, 5),
            _leaf("Electronics > Computing > Mice", "Mouse, Trackball", 9, 110, 110, 4),
            _leaf("Electronics > Mobile > Phone cases", "Phone Case, Phone Sleeve", 7, 45, 60, 9),
            _leaf("Electronics > Mobile > Chargers", "Charger, Power Bank, Charging Stand", 9, 90, 240, 7),
            _leaf("Electronics > Wearables > Smartwatches", "Smartwatch, Fitness Band", 35, 390, 90, 5),
            _leaf("Electronics > Photo > Tripods", "Tripod, Camera Strap", 15, 210, 1100, 2),
        ),
    ),
    Department(
        "Sports",
        _words("Ridgeline, Paceline, Ostra, Blue Cairn, Velomar, Tarn"),
        _words("Lightweight, Waterproof, Padded, Adjustable, Thermal, Quick-dry, Pro, Trail, Compact, Reflective"),
        _words("Ripstop, Carbon, Cork, Rubber, Polyester, Steel"),
        (
            _leaf("Sports > Cycling > Helmets", "Helmet, Commuter Helmet", 29, 190, 340, 4),
            _leaf("Sports > Cycling > Bike lights", "Bike Light, Light Set", 9, 95, 120, 4),
            _leaf("Sports > Fitness > Yoga mats", "Yoga Mat, Travel Mat", 14, 95, 1400, 6),
            _leaf("Sports > Fitness > Dumbbells", "Dumbbell, Kettlebell", 12, 140, 6000, 4),
            _leaf("Sports > Outdoor > Tents", "Tent, Tarp", 59, 480, 2800, 3),
            _leaf("Sports > Outdoor > Sleeping bags", "Sleeping Bag, Quilt", 35, 290, 1300, 3),
            _leaf("Sports > Outdoor > Backpacks", "Backpack, Daypack", 25, 220, 1000, 6),
            _leaf("Sports > Swimming > Goggles", "Goggles, Swim Mask", 8, 55, 90, 2),
        ),
    ),
    Department(
        "Garden",
        _words("Greenholm, Petit Jardin, Thornbury, Solano, Wren & Field"),
        _words("Weatherproof, Hanging, Folding, Stackable, Ergonomic, Tall, Rustic, Compact, Sturdy"),
        _words("Terracotta, Teak, Zinc, Ash, Steel, Jute"),
        (
            _leaf("Garden > Plants > Plant pots", "Plant Pot, Planter, Balcony Box", 6, 90, 1900, 6),
            _leaf("Garden > Plants > Seed sets", "Seed Set, Herb Kit", 4, 28, 120, 4),
            _leaf("Garden > Tools > Pruners", "Pruner, Lopper", 9, 85, 380, 3),
            _leaf("Garden > Tools > Spades", "Spade, Hand Trowel", 8, 75, 1500, 2),
            _leaf("Garden > Furniture > Chairs", "Garden Chair, Deck Chair", 29, 260, 5200, 4),
            _leaf("Garden > Furniture > Tables", "Bistro Table, Side Table", 39, 390, 9000, 2),
            _leaf("Garden > Outdoor cooking > Grills", "Grill, Fire Bowl", 35, 450, 12000, 3),
            _leaf("Garden > Wildlife > Bird feeders", "Bird Feeder, Nesting Box", 7, 48, 700, 3),
        ),
    ),
    Department(
        "Toys",
        _words("Klotz & Kin, Papillon, Tumbletown, Bramble, Little Foundry"),
        _words("Colourful, Magnetic, First, Giant, Travel, Glow, Musical, Mini, Classic"),
        _words("Beech, Cardboard, Felt, Plush, Tin"),
        (
            _leaf("Toys > Building > Block sets", "Block Set, Marble Run", 12, 110, 1400, 6),
            _leaf("Toys > Puzzles > Jigsaws", "Jigsaw, 3D Puzzle", 8, 42, 700, 5),
            _leaf("Toys > Games > Board games", "Board Game, Strategy Game", 15, 75, 1200, 6),
            _leaf("Toys > Games > Card games", "Card Game, Party Game", 6, 28, 260, 4),
            _leaf("Toys > Outdoor > Kites", "Kite, Stunt Kite", 9, 60, 320, 2),
            _leaf("Toys > Soft toys > Animals", "Bear, Rabbit, Fox", 9, 48, 300, 5),
            _leaf("Toys > Crafts > Painting sets", "Painting Set, Craft Box", 7, 45, 650, 4),
            _leaf("Toys > Vehicles > Toy cars", "Toy Car, Fire Engine, Tram", 5, 38, 260, 4),
        ),
    ),
    Department(
        "Beauty",
        _words("Salvia, Maren, Atelier Doux, Kind Root, Isola"),
        _words("Gentle, Nourishing, Fresh, Daily, Overnight, Fragrance-free, Rich, Light, Botanical"),
        _words("Oat, Sea Salt, Lavender, Argan, Charcoal, Rose"),
        (
            _leaf("Beauty > Skin > Creams", "Face Cream, Hand Cream", 6, 75, 120, 8),
            _leaf("Beauty > Skin > Serums", "Serum, Face Oil", 9, 95, 80, 6),
            _leaf("Beauty > Hair > Shampoos", "Shampoo, Conditioner", 5, 38, 320, 6),
            _leaf("Beauty > Hair > Brushes", "Hairbrush, Comb", 5, 60, 140, 3),
            _leaf("Beauty > Bath > Soaps", "Soap, Shower Bar", 3, 22, 130, 5),
            _leaf("Beauty > Bath > Bath sets", "Bath Set, Bath Salt", 8, 55, 600, 3),
            _leaf("Beauty > Fragrance > Perfumes", "Eau de Parfum, Cologne", 19, 180, 220, 5),
            _leaf("Beauty > Shaving > Razors", "Razor, Shaving Set", 6, 95, 190, 3),
        ),
    ),
)

COLLECTIBLES: Final = Department(
    "Collectibles",
    _words("Old Mill Editions, Cabinet No. 9, Postmark House, Gauge One"),
    _words("First-run, Numbered, Restored, Signed, Anniversary, Boxed, Rare, Pocket"),
    _words("Brass, Paper, Tin, Silver, Enamel"),
    (
        _leaf("Collectibles > Stamps", "Stamp Sheet, First Day Cover", 6, 60, 40, 1),
        _leaf("Collectibles > Model trains", "Tank Engine, Goods Wagon", 29, 240, 600, 1),
        _leaf("Collectibles > Coins", "Commemorative Coin, Token", 15, 180, 50, 1),
        _leaf("Collectibles > Postcards", "Postcard, Postcard Set", 3, 25, 30, 1),
        _leaf("Collectibles > Die-cast cars", "Die-cast Coupé, Die-cast Van", 12, 95, 250, 1),
        _leaf("Collectibles > Enamel pins", "Enamel Pin, Lapel Badge", 4, 22, 20, 1),
        _leaf("Collectibles > Comic books", "Comic Book, Graphic Novel", 6, 70, 300, 1),
        _leaf("Collectibles > Minerals", "Mineral Specimen, Geode", 8, 150, 400, 1),
    ),
)

# The groups that tastes and assortments speak of: a leaf of every ordinary department, in this order. Collections
# follow, each a group of its own.
LEAVES: Final = tuple(leaf for department in DEPARTMENTS for leaf in department.leaves)
LEAF_DEPARTMENT: Final = tuple(number for number, department in enumerate(DEPARTMENTS) for _ in department.leaves)
