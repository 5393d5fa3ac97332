"""Seeded Unicode strings for the tokenizer cases: every script, and the corners where splitting rules and normalisers differ."""

import random
import unicodedata

# First and last code point of letters of a script. Words are drawn from them; unassigned ones between them are left in on purpose.
SCRIPTS = {
    "latin": (0x61, 0x7A), "latin-1": (0xC0, 0x17F), "latin-b": (0x180, 0x24F), "ipa": (0x250, 0x2AF), "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x4FF), "armenian": (0x531, 0x587), "hebrew": (0x5D0, 0x5EA), "arabic": (0x620, 0x64A), "syriac": (0x710, 0x72F),
    "devanagari": (0x900, 0x97F), "bengali": (0x980, 0x9FF), "tamil": (0xB80, 0xBFF), "thai": (0xE01, 0xE4E), "tibetan": (0xF40, 0xFBC),
    "georgian": (0x10A0, 0x10FF), "jamo": (0x1100, 0x11FF), "ethiopic": (0x1200, 0x137F), "cherokee": (0x13A0, 0x13FD),
    "khmer": (0x1780, 0x17D3), "mongolian": (0x1820, 0x1878), "latin-more": (0x1E00, 0x1EFF), "greek-more": (0x1F00, 0x1FFF),
    "hiragana": (0x3041, 0x309F), "katakana": (0x30A0, 0x30FF), "bopomofo": (0x3105, 0x312F), "han": (0x4E00, 0x4EFF),
    "han-all": (0x3400, 0x9FFF), "yi": (0xA000, 0xA48C), "hangul": (0xAC00, 0xAD00), "hangul-all": (0xAC00, 0xD7A3),
    "compatibility": (0xF900, 0xFAFF), "forms": (0xFB00, 0xFDFF), "wide": (0xFF21, 0xFF5A), "gothic": (0x10330, 0x1034A),
    "deseret": (0x10400, 0x1044F), "adlam": (0x1E900, 0x1E943), "mathematical": (0x1D400, 0x1D7FF), "han-b": (0x20000, 0x2A6DF),
}
SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2007\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u2060\ufeff"
NUMBERS = [chr(c) for c in range(0x20000) if unicodedata.category(chr(c))[0] == "N"]
MARKS = [chr(c) for c in range(0x20000) if unicodedata.category(chr(c))[0] == "M"]
SYMBOLS = [chr(c) for c in range(0x20000) if unicodedata.category(chr(c))[0] in "PS"]
DECOMPOSING = [chr(c) for c in range(0x30000) if unicodedata.decomposition(chr(c)) and not unicodedata.decomposition(chr(c)).startswith("<")]
PEOPLE = "\U0001f468\U0001f469\U0001f467\U0001f466\U0001f9d1"
FACES = "\U0001f600\U0001f602\u2764\U0001f680\U0001f44d\u263a\U0001f1e9\U0001f1ea\U0001f3f4\u0031\u0023"
TONES = ["", "\U0001f3fb", "\U0001f3ff", "\ufe0f", "\u20e3", "\ufe0f\u20e3"]
TAILS = ["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "Re", "rE", "VE", "M", "lL", "LL", "D", "\u017f", "x", "r", "l", "v"]
PIECES = ["http://a.b/c?d=e&f=g", "if (x != 0) {\n\treturn -1;\n}", "\r\n\r\n", "\n\n\n", " \n \n", "a/b//c\n/", "...", "!!!\n", "?!/\r\n", "<0x41>",
          "<0xFF>", "\u2581", "\u2581\u2581a", "\u0120the", "\u010a", "#version", "[MASK]", "<unk>", "  \t ", "\u00a0 ", "\u2026", "---\n\n---",
          "McDonald iPhone OpenAI USA's", "\u01c5\u01c8abc", "\u02b0\u02b1X", "\u00aa\u00ba", "\u0130stanbul \u0131", "stra\u00dfe STRASSE", "\u1e9e"]


class Strings:
    def __init__(self, corpus, added, seed):
        self.rng = random.Random(seed)
        self.corpus = corpus
        self.added = added
        self.words = {name: [self.new_word(low, high) for _ in range(60)] for name, (low, high) in SCRIPTS.items()}
        self.makers = [self.prose, self.word_run, self.word_run, self.odd_letters, self.marked, self.emoji, self.digits, self.spaces, self.control,
                       self.planes, self.run, self.contraction, self.added_tokens, self.forms, self.symbols, self.piece, self.mixed_case]

    def new_word(self, low, high):
        return "".join(chr(self.rng.randint(low, high)) for _ in range(self.rng.randint(1, 7)))

    def word(self, name=None):
        words = self.words[name or self.rng.choice(list(SCRIPTS))]
        return words[min(int(self.rng.expovariate(0.12)), len(words) - 1)]

    def text(self, words):
        """Training text: words of one script after another."""
        out = []
        while words > 0:
            name, count = self.rng.choice(list(SCRIPTS)), self.rng.randint(3, 12)
            out.append(" ".join(self.word(name) for _ in range(count)) + self.rng.choice([".", ",", "\n", " 123", " 2025 "]))
            words -= count
        return out

    def prose(self):
        at = self.rng.randrange(len(self.corpus))
        return self.corpus[at:at + self.rng.randint(1, 60)]

    def word_run(self):
        name = self.rng.choice(list(SCRIPTS))
        return self.rng.choice([" ", "", ", ", "\n"]).join(self.word(name) for _ in range(self.rng.randint(1, 5)))

    def odd_letters(self):
        return "".join(self.new_word(*self.rng.choice(list(SCRIPTS.values())))[:3] for _ in range(self.rng.randint(1, 4)))

    def marked(self):
        return "".join(c + "".join(self.rng.choices(MARKS, k=self.rng.randint(0, 3))) for c in self.rng.choice(["", " "]) + self.word())

    def emoji(self):
        family = "\u200d".join(self.rng.choices(PEOPLE, k=self.rng.randint(1, 4)))
        return self.rng.choice([family, self.rng.choice(FACES)]) + self.rng.choice(TONES) + self.rng.choice(["", " ", "\u200d\u2640\ufe0f"])

    def digits(self):
        kind = self.rng.choice([NUMBERS, "0123456789", "\u0660\u0661\u0662\u06f3", "\u00b2\u00b3\u00bd\u2167", "\uff10\uff19"])
        return self.rng.choice(["", " ", "x", "-"]) + "".join(self.rng.choices(kind, k=self.rng.randint(1, 9))) + self.rng.choice(["", "a", ".5", "%"])

    def spaces(self):
        return "".join(self.rng.choices(SPACES, k=self.rng.randint(1, 6)))

    def control(self):
        return "".join(chr(self.rng.choice([self.rng.randrange(32), self.rng.randint(127, 160), self.rng.randint(0x200B, 0x200F), 0xFFFD, 0xFFFE]))
                       for _ in range(self.rng.randint(1, 4)))

    def planes(self):
        codes = [self.rng.choice([self.rng.randrange(0xD800), self.rng.randint(0xE000, 0x10FFFF), self.rng.randrange(0x800)]) for _ in range(self.rng.randint(1, 5))]
        return "".join(map(chr, codes))

    def run(self):
        unit = self.rng.choice(["a", " ", "\n", "1", "\u0301", "=", "\u4e00", "ab", "\r\n", "\u2581", "\u00e9", "e\u0301", " x", "\U0001f602", "A", "aA", "\t", "\u3000", self.word()])
        return unit * self.rng.choice([2, 3, 4, 7, 8, 16, 31, self.rng.randint(2, 120)])

    def contraction(self):
        return self.rng.choice(["I", "don", "WE", "", " ", "1", "\u00e9"]) + self.rng.choice(["'", "'", "'", "\u2019", "''"]) + self.rng.choice(TAILS) + self.rng.choice(["", " ", "x", "'"])

    def added_tokens(self):
        return "".join(self.rng.choice(["", "", " ", "  ", "x", "\n", ".", "_", "\u0301", "\u3000"]) + self.rng.choice(self.added) for _ in range(self.rng.randint(1, 4))) + self.rng.choice(["", " ", " y", "\t", "z"])

    def forms(self):
        text = "".join(self.rng.choices(DECOMPOSING, k=self.rng.randint(1, 4))) + self.word("latin-1")
        return unicodedata.normalize(self.rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)

    def symbols(self):
        return self.rng.choice(["", " ", "a"]) + "".join(self.rng.choices(SYMBOLS, k=self.rng.randint(1, 4))) + self.rng.choice(["", "b", "\n", "/", " "])

    def piece(self):
        return self.rng.choice(PIECES)

    def mixed_case(self):
        word = self.word(self.rng.choice(["latin", "latin-1", "greek", "cyrillic", "armenian", "deseret", "latin-more", "georgian"]))
        return self.rng.choice(["", " ", "_"]) + "".join(self.rng.choice([c.upper, c.lower, c.title])() for c in word + "bc")

    def one(self):
        if self.rng.random() < 0.02:
            return self.rng.choice(self.makers)() * self.rng.randint(1, 4)
        maker = self.rng.choice(self.makers) if self.rng.random() < 0.2 else None
        return "".join((maker or self.rng.choice(self.makers))() for _ in range(self.rng.choice([1, 1, 2, 2, 3, 4, 6])))

    def many(self, count, wanted):
        out = ["", " ", "\n", "a", "\0", "\U0010ffff"]
        while len(out) < count:
            text = self.one()[:400].encode("utf-8", "ignore").decode()
            if wanted(text):
                out.append(text)
        return out
