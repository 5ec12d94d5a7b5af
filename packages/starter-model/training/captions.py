"""Writes English and Chinese captions of scenes, and makes the tokenizer from them. Training only.

Every attribute is said in at least about half of the captions, in several wordings. What is seldom left
unsaid is what a reader would not assume: so "a dog" stands still by day in clear weather. Motion is never left
to guess: "a dog" always stands still, and "a dog runs" always goes from left to right. Style words that do not change the picture are mixed in so that prompts may carry them.
"""

import json

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from model import MAX_TOKENS

EN = {
    "ball": ["ball", "big ball", "ball", "round ball"], "dog": ["dog", "puppy", "retriever", "dog"],
    "cyclist": ["bicycle", "person on a {c} bicycle", "cyclist", "bike", "person riding a {c} bicycle", "man on a {c} bike", "woman riding a {c} bike"],
    "boat": ["boat", "sailing boat", "ship", "sailboat"], "bird": ["bird", "little bird", "flying bird", "bird"],
    "car": ["car", "small car", "car", "sports car"], "star": ["star", "big star", "shining star"],
    "red": ["red", "bright red", "crimson"], "golden": ["golden", "yellow", "gold"], "green": ["green", "bright green"],
    "blue": ["blue", "bright blue"], "purple": ["purple", "violet"], "pink": ["pink", "rose pink"], "white": ["white", "pure white"], "black": ["black", "dark black"],
    "beach": ["along the beach", "on the beach", "at the beach", "on the sand by the ocean", "on the seaside sand"],
    "street": ["along the street", "on the street", "in the street", "through the street", "down a road with houses", "in a small town", "in the village"],
    "meadow": ["in the meadow", "across the meadow", "on the grass", "in the park", "through the green field", "in a field of flowers"],
    "city": ["through the city", "in the city", "downtown", "between skyscrapers", "in front of tall buildings"],
    "sea": ["on the sea", "over the sea", "on the ocean", "on the water", "across the ocean waves"],
    "day": ["during the day", "at noon", "in daylight", "in the morning", "under a blue sky", "by day"],
    "sunset": ["at sunset", "at dusk", "in the evening light", "during golden hour", "as the sun sets", "at sunrise"],
    "night": ["at night", "at midnight", "under the stars", "in the moonlight", "in the dark", "by night"],
    "clear": ["clear weather", "clear sky", "no clouds", "fine weather", "dry"], "rain": ["in the rain", "rainy", "raining", "rain", "heavy rain", "in the rain"],
    "snow": ["in the snow", "snow", "snowy", "snowing", "snowfall", "in winter"],
    "left to right": ["from left to right", "to the right", "moving right"], "right to left": ["from right to left", "to the left", "moving left"],
    "bounces": ["bouncing", "jumping up and down", "hopping", "jumping", "bouncing up and down"], "stays": ["standing still", "staying in place", "not moving", "waiting", "resting"],
}
ZH = {
    "ball": ["球", "皮球", "大球"], "dog": ["狗", "小狗", "犬", "猎犬", "狗狗"], "cyclist": ["自行车", "骑自行车的人", "单车", "骑车的人"],
    "boat": ["船", "小船", "帆船"], "bird": ["鸟", "小鸟", "飞鸟"], "car": ["汽车", "车", "小汽车", "轿车"], "star": ["星星", "五角星", "大星星"],
    "red": ["红色", "红", "鲜红色"], "golden": ["金色", "黄色", "金黄色", "金"], "green": ["绿色", "绿", "翠绿色"], "blue": ["蓝色", "蓝", "天蓝色"],
    "purple": ["紫色", "紫"], "pink": ["粉色", "粉红色"], "white": ["白色", "白", "纯白色"], "black": ["黑色", "黑"],
    "beach": ["海滩", "沙滩", "海边的沙滩"], "street": ["街道", "马路", "街", "小镇", "村庄"], "meadow": ["草地", "草原", "公园", "花丛"],
    "city": ["城市", "都市", "高楼大厦之间", "市中心"], "sea": ["海面", "大海", "海洋", "水面", "海"],
    "day": ["白天", "中午", "早晨", "日光下", "蓝天下"], "sunset": ["夕阳下", "日落时", "黄昏", "傍晚", "日出时", "夕阳"], "night": ["夜晚", "夜里", "深夜", "月光下", "星空下", "夜间"],
    "clear": ["晴天", "晴朗", "天气晴朗", "无云"], "rain": ["雨中", "下雨", "下着雨", "大雨", "雨天"], "snow": ["雪中", "下雪", "下着雪", "大雪", "雪天"],
    "left to right": ["从左到右", "向右", "从左向右"], "right to left": ["从右到左", "向左", "从右向左"], "bounces": ["跳跃", "蹦跳", "上下跳动", "弹跳"], "stays": ["静止不动", "停着", "站着不动", "一动不动"],
}
VERBS = {"ball": ["rolls", "moves"], "dog": ["runs", "walks", "is running", "plays"], "cyclist": ["rides", "cycles", "goes"], "boat": ["sails", "floats", "drifts"],
         "bird": ["flies", "is flying", "soars"], "car": ["drives", "races", "is driving"], "star": ["floats", "glides", "moves"]}
VERBS_ZH = {"ball": ["滚动", "移动"], "dog": ["奔跑", "跑", "行走", "玩耍"], "cyclist": ["骑行", "穿过", "前进"], "boat": ["航行", "漂流", "行驶"],
            "bird": ["飞", "飞翔", "飞过"], "car": ["行驶", "驶过", "飞驰", "开"], "star": ["飘动", "移动", "漂浮"]}
STYLE = ["cinematic", "slow motion", "high quality", "cartoon style", "4k", "beautiful", "film look", "detailed", "wide shot", "close up", "happy", "soft light"]
STYLE_ZH = ["慢动作", "电影质感", "高清", "卡通风格", "高质量", "唯美", "镜头", "细节丰富", "快乐", "广角", "画面精美"]
COUNT_ZH = {"dog": "只", "bird": "只", "car": "辆", "boat": "艘", "cyclist": "辆", "ball": "个", "star": "颗"}


def choose(rng, values):
    return values[int(rng.integers(len(values)))]


def goes(rng, s, say):
    """Whether a verb of moving is used: unsaid, it means left to right, and no verb means that it stays."""
    if s.motion in ("stays", "bounces"):
        return False
    return not say["motion"] or rng.random() < 0.6


def english(rng, s, say):
    colour = choose(rng, EN[s.colour]) if say["colour"] else ""
    moving = goes(rng, s, say)
    names = [n for n in EN[s.subject] if moving or "{c}" not in n]
    noun = choose(rng, names) if say["subject"] else choose(rng, ["thing", "scene", "something"])
    noun = noun.replace("{c} ", colour + " " if colour else "").replace("  ", " ") if "{c}" in noun else f"{colour} {noun}".strip()
    if s.subject == "dog" and say["subject"] and s.colour == "golden" and rng.random() < 0.15:
        noun = "golden retriever"
    if s.subject == "cyclist" and say["subject"] and colour and moving and rng.random() < 0.3:
        noun = f"person rides a {colour} {choose(rng, ['bicycle', 'bike'])}"
    article = "" if rng.random() < 0.15 else choose(rng, ["a ", "the ", "one ", "a "])
    parts = [choose(rng, EN[getattr(s, n)]) for n in ("place", "time", "weather", "motion") if say[n]]
    if s.place == "city" and s.time == "night" and rng.random() < 0.3:
        parts.append(choose(rng, ["cyberpunk", "cyberpunk city", "neon lights", "city at night"]))
    if s.time == "day" and s.weather == "clear" and rng.random() < 0.25:
        parts.append(choose(rng, ["sunny", "sunny day", "sunshine"]))
    if rng.random() < 0.3:
        parts = [parts[i] for i in rng.permutation(len(parts))]
    verb = choose(rng, VERBS[s.subject]) if moving and "rid" not in noun else ""
    text = f"{article}{noun} {verb}".strip()
    join = choose(rng, [" ", ", ", " "])
    text = join.join([text] + parts)
    for _ in range(int(rng.integers(3)) if rng.random() < 0.4 else 0):
        text = f"{text}, {choose(rng, STYLE)}" if rng.random() < 0.7 else f"{choose(rng, STYLE)} {text}"
    return text + choose(rng, ["", ".", ""])


def chinese(rng, s, say):
    colour = choose(rng, ZH[s.colour]) if say["colour"] else ""
    noun = choose(rng, ZH[s.subject]) if say["subject"] else choose(rng, ["东西", "画面", "物体"])
    of = "的" if colour.endswith("色") and rng.random() < 0.6 else ""
    count = choose(rng, ["一" + COUNT_ZH[s.subject], "一个", "", "一" + COUNT_ZH[s.subject]])
    if s.subject == "dog" and say["subject"] and s.colour == "golden" and rng.random() < 0.25:
        noun, of, colour = choose(rng, ["金毛犬", "金毛", "金毛狗", "金毛寻回犬"]), "", ""
    thing = f"{count}{colour}{of}{noun}"
    moving = goes(rng, s, say)
    verb = choose(rng, VERBS_ZH[s.subject]) if moving else ""
    if s.subject == "cyclist" and say["subject"] and moving and rng.random() < 0.6:
        thing = f"一个人骑着{colour}{of}{choose(rng, ['自行车', '单车'])}"
        verb = choose(rng, ["穿过", "", "经过", "骑行"])
    place = choose(rng, ZH[s.place]) if say["place"] else ""
    time, weather = (choose(rng, ZH[getattr(s, n)]) if say[n] else "" for n in ("time", "weather"))
    motion = choose(rng, ZH[s.motion]) if say["motion"] else ""
    before = [x for x in (time, weather) if x]
    if rng.random() < 0.3:
        before.reverse()
    where = "的".join(before + [place]) if place else "的".join(before)
    shape = rng.random()
    if shape < 0.45 and where:
        text = f"{thing}在{where}{choose(rng, ['', '上', '里']) if place else ''}{motion}{verb}"
    elif shape < 0.6 and where:
        text = f"{where}，{thing}{motion}{verb}"
    elif shape < 0.75 and moving:
        text = f"{thing}{motion}{verb or '穿过'}{where}"
    else:
        rest = [x for x in (place, time, weather, motion) if x]
        text = "，".join([thing + verb] + [rest[i] for i in rng.permutation(len(rest))])
    if s.place == "city" and s.time == "night" and rng.random() < 0.3:
        text += choose(rng, ["，赛博朋克", "，霓虹灯", "，城市夜景"])
    for _ in range(int(rng.integers(3)) if rng.random() < 0.5 else 0):
        text += "，" + choose(rng, STYLE_ZH)
    return text + choose(rng, ["", "。", ""])


def caption(rng, scene, share=0.6):
    """One caption, and which attributes it says, in the order of world.ATTRIBUTES."""
    names = ("subject", "colour", "place", "time", "weather", "motion")
    say = {n: rng.random() < share for n in names}
    say["subject"] |= rng.random() < 0.7
    for name, usual, rare in (("weather", ("clear",), 0.9), ("time", ("day",), 0.85), ("motion", ("left to right", "stays"), 1.0)):
        if getattr(scene, name) not in usual and rng.random() < rare:
            say[name] = True
    text = (english if rng.random() < 0.55 else chinese)(rng, scene, say)
    return text, [say[n] for n in names]


def make_tokenizer(path, texts, size):
    """Trains the BPE tokenizer and writes tokenizer.json at `path`."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    tok.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex("[\u4e00-\u9fff]"), "isolated"), pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tok.decoder = decoders.Fuse()
    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-:;()")
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"],
                                                       initial_alphabet=alphabet, show_progress=False))
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tok.save(str(path))


def load(path):
    tok = Tokenizer.from_file(str(path))
    tok.no_padding()
    tok.enable_truncation(MAX_TOKENS)
    return tok


def encode(tok, texts):
    """Token ids [n, longest] int64, padded with 0."""
    rows = [e.ids for e in tok.encode_batch(list(texts))]
    out = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for i, row in enumerate(rows):
        out[i, :len(row)] = row
    return out


def vocabulary_size(path):
    return len(json.load(open(path, encoding="utf-8"))["model"]["vocab"])
