"""What a line says about somebody, in any script: a label with a value, a sentence whose complement is a name, a form
of address. A noun that means a person is never enough: prompts are full of rules about customers."""

from __future__ import annotations

import re
from typing import Final

from otel_promptcache.fingerprint.names import BEHIND

_I: Final = re.IGNORECASE
_NAME_WORDS: Final = 4
_NAME_SIGNS: Final = 24
"""Words, and signs of a script without capitals, that a name has at most."""

_WHO: Final = (
    r"(?:user|customer|client|member|patient|student|employee|tenant|account|subscriber|guest|caller|contact|owner"
    r"|recipient|visitor|person|buyer|learner|player|reader|passenger|resident|applicant|tester|driver|author"
    r"|benutzer|nutzer|kunden?|kundin|anwender|mitglied|patient(?:in|en)?|gast|utilisateur|utilisatrice|client[ea]?"
    r"|abonn[ée]e?|usuari[oa]|utente|paciente|gebruiker|klant|kund|anv[äa]ndare|bruker|u[żz]ytkownik|klient"
    r"|kullan[ıi]c[ıi]|m[üu][şs]teri|käyttäjä|asiakas|kunde|pelanggan|pengguna"
    r"|пользовател[ья]|клиент[а]?|пациент[а]?|користувач|клієнт|χρήστης|πελάτης|người dùng|khách hàng)"
)
_WHO_UNCASED: Final = (
    r"(?:المستخدم|العميل|الزبون|المريض|کاربر|مشتری|המשתמש|הלקוח|משתמש|לקוח|उपयोगकर्ता|ग्राहक|मरीज|ব্যবহারকারী|গ্রাহক"
    r"|பயனர்|வாடிக்கையாளர்|ผู้ใช้|ลูกค้า|ユーザー|ユーザ|お客様|利用者|顧客|会員|用户|用戶|客户|客戶|顾客|会员|사용자|고객|회원)"
)
_ABOUT: Final = (
    r"(?:name|id|info|profile|plan|tier|role|e-?mail|phone|address|language|locale|country|city|age|type|segment"
    r"|preferences?|since|data|details|context|birthday|dob|birthdate|subscription|membership|loyalty|company"
    r"|organi[sz]ation|department|job title|team|interests|hobbies|vorname|nachname|anschrift|adresse|sprache"
    r"|pr[ée]nom|nom|langue|nombre|apellidos?|idioma|direcci[óo]n|nome|sobrenome|endere[çc]o|cognome|indirizzo|lingua"
    r"|naam|adres|namn|navn|imi[ęe]|nazwisko|(?:ad|isim|soyad)[ıi]?|balance|wohnort|ort"
    r"|имя|фамилия|язык|адрес|ім[ʼ'’]?я|όνομα|tên|địa chỉ)"
)
_ABOUT_UNCASED: Final = (
    r"(?:اسم|الاسم|العنوان|نام|آدرس|שם|כתובת|नाम|पता|নাম|ঠিকানা|பெயர்|முகவரி|ชื่อ|ที่อยู่"
    r"|お?名前|氏名|住所|姓名|名字|地址|이름|성함|주소)"
)
_PART: Final = r"(?:first|last|full|display|given|family|user|middle)"

_CONTACT: Final = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,63}|\+\d{1,3}[ ()-]?\d[\d ()/-]{6,20}")
_FIGURES: Final = re.compile(
    # What only digits tell, and nobody but a person has.
    r"\b(?:phone|telephone|tel|t[ée]l(?:[ée]phone)?|telefon\w*|tel[ée]fono|mobile?|mobil\w*|handy\w*|cell|fax|whatsapp|iban"
    r"|ssn|date of birth|birth ?da(?:te|y)|born|dob|geb|geboren|geburtsdatum|n[ée]e? le|date de naissance|naissance"
    r"|nacid[oa]|fecha de nacimiento|nacimiento|nascid[oa]|nascimento|nat[oa] il|data di nascita|geboortedatum"
    r"|født|född|data urodzenia|do[ğg]um tarihi|телефон\w*|дата рождения|родил\w*|ngày sinh|điện thoại)"
    r"(?!\w)\.?\W{0,6}(?:(?:number|no\.?|on|in|am|le|el|il|em)\W{1,3})?(?:[(+]\s?)?(?:\d|[A-Z]{2}\d\d\b)"
    r"|\bIBAN\b|\+\d{1,3}[ ()-]?\d[\d ()/-]{6,20}\d"
    r"|(?:هاتف|الهاتف|تاريخ الميلاد|تلفن|फ़ोन|फोन|जन्म ?तिथि|जन्म|โทรศัพท์|โทร|วันเกิด"
    r"|電話番号?|生年月日|誕生日|电话|電話|手机|出生日期|生日"
    r"|전화번호|전화|생년월일|생일|טלפון|תאריך לידה)[^\d\n]{0,6}\d",
    _I,
)

_LABEL: Final = re.compile(
    # Customer name, user.plan, userName, client (VIP); in a table, in bold, as a tag of XML.
    rf"(?:^|[\s\"'<{{(\[|*_.-]|(?<=[a-z])(?=(?-i:[A-Z])))(?:{_PART}[ ._-]?)?(?P<label>{_WHO}|{_ABOUT}|{_WHO_UNCASED}|"
    rf"{_ABOUT_UNCASED})(?:['’]s|名|명)?(?:[ ._-]?{_PART})?(?:[ ._-]?(?:{_ABOUT}|の?{_ABOUT_UNCASED}|{_WHO_UNCASED}))?"
    rf"(?:[ _-]?(?:level|status|stufe|niveau|nivel))?"
    rf"(?:\s?\([^()\n]{{0,20}}\))?(?:{BEHIND}|>\s*)(?=(?P<value>[^\n]{{1,120}}))",
    _I,
)
_IS: Final = (
    r"(?:is(?: (?:called|named))?|named|called|ist|hei[ßs]+t|lautet|est|s['’]appelle|se nomme|es|se llama|è|si chiama|é"
    r"|se chama|är|heter|er|hedder|heet|nazywa się|зовут|—|-|là|tên là)"
)
_OPENERS: Final = r"(?:(?:the|this|your|current|our|der|die|das|dein[e]?|ihr[e]?|le|la|l['’]|el|il|o|a|sie|de)\s*){0,3}"
_START: Final = r"(?:^\W*|[.!?;:。(]\s*)"
_NOW: Final = r"(?:当前|目前的?|现在的?|現在の|現在担当中の|현재 ?)"
_OF: Final = r"(?:of (?:the )?|des |der |du |de la |de l['’]|del |della |dell['’]|do |da |van de |)"
_SPEAKS_WITH: Final = (
    r"\b(?:mein name ist|ich hei[ßs]+e|my name is|je m['’]appelle|me llamo|mi chiamo|меня зовут"
    r"|ihr gespr[äa]chspartner(?:in)? ist|(?:sie|du) (?:helfen|hilfst)|(?:sie|du) (?:sprechen|sprichst) mit"
    r"|angemeldet als|vous (?:aidez|assistez|parlez (?:[àa]|avec)|conversez avec)|connect[ée]e? en tant que"
    r"|tu (?:aides|parles [àa]|parles avec)|ayudas? a|ayudando a|(?:hablas|hablando|conversas|conversando) con"
    r"|atendiendo a|ajudando|atendendo|(?:falando|conversando) com|stai aiutando|(?:parli|parlando) con"
    r"|(?:pratar|talar|snakker|taler) med|(?:praat|spreekt) met|rozmawiasz z|pomagasz|konuştuğun kişi"
    r"|помога(?:ешь|ете)|говорите с|(?:helping|assisting|serving|talking (?:to|with)|speaking (?:to|with)"
    r"|chatting with|on behalf of|address(?:ing)? (?:them|him|her|the user) as|call (?:them|him|her|the user|me)"
    r"|assistant (?:of|to|for)|(?:signed|logged) in as))\s+(?P<start>[^\n]+)"
)
_HINDI: Final = (
    r"(?:ग्राहक|उपयोगकर्ता|मरीज|গ্রাহক\w*|ব্যবহারকারী\w*) ?(?:का|की|के|র|ের)? ?(?:नाम|নাম)"
    r" (?P<certain>\S+(?: \S+){0,2}) (?:है|हैं|হল|হলো)"
)
_CHINESE_NAME: Final = r"(?P<certain>[^\s，。,.]{1,6})(?:[，。,.]|$)"
_PREDICATES: Final = tuple(
    # ``name``: what is said of somebody, to be looked at; ``start``: it begins with their name; ``certain``: it is one.
    re.compile(pattern, _I)
    for pattern in (
        # The user's name is Ada; the customer is called Ada. The same the other way about: le nom du client est Ada.
        rf"{_START}{_OPENERS}{_WHO}(?:['’]s)?(?:[ _](?:[a-z]{{2,20}} )?{_ABOUT})?\s+{_IS}\s+(?P<name>[^\n]+)",
        r"^\W*(?:(?:käyttäjä|asiakas) on|(?:u[żz]ytkownik|klient) to)\s+(?P<name>[^\n]+)",
        rf"{_START}{_OPENERS}{_ABOUT}\s+{_OF}{_WHO}s?\s+{_IS}\s+(?P<name>[^\n]+)",
        r"\b(?:is|are) (?:called|named)\s+(?P<name>[^\n]+)",
        r"\b(?:(?:signed|logged) in as|angemeldet als|connect[ée]e? en tant que)\s+(?P<certain>\S+)\s*$",
        _SPEAKS_WITH,
        # Where there are no capitals, the verb is needed, or the word for a name.
        _HINDI,
        rf"{_WHO_UNCASED}の?(?:お?名前|氏名)は\s?(?P<certain>[^\s、。]{{1,10}}?)(?:です|である|だ|様|さん)[。.]?\s*$",
        rf"{_WHO_UNCASED}의? (?:이름|성함)[은는]\s?(?P<certain>\S{{1,10}}?)\s?(?:입니다|이다|이에요|예요|님)",
        rf"{_WHO_UNCASED}的?(?:名字|姓名)?(?:名叫|叫做|叫|名为){_CHINESE_NAME}",
        rf"{_WHO_UNCASED}的?(?:名字|姓名)(?:是|为){_CHINESE_NAME}",
        rf"{_NOW}{_WHO_UNCASED}(?:是|为|は|는|은)\s?(?P<certain>[^\s，。,.(]{{1,10}}?)(?:です|입니다|이다)?(?:[，。,.(]|$)",
        rf"(?:اسم|نام|שם)\s+{_WHO_UNCASED}\s+(?:هو|هي|הוא|היא)?\s?(?P<name>\S[^\n]*)",
        rf"{_WHO_UNCASED}\s?ชื่อ\s?(?P<certain>[^\s.,]{{2,20}})(?:\s|$)",
        rf"(?:{_WHO_UNCASED}|あなたの相手|相手)(?:は|이름은|은|는)\s?(?!神|王|皆)(?P<certain>\S{{1,12}}\s?(?:様|さん|さま|님|씨))",
    )
)
_GREETING: Final = re.compile(
    r"^\W*(?:welcome(?: back)?|dear|hello|hi|hey|greetings|hallo|guten (?:tag|morgen|abend)|sehr geehrte[rs]?|lieber?"
    r"|bonjour|bonsoir|ch[eè]re?|hola|estimad[oa]|buenos d[íi]as|buenas tardes|ciao|buongiorno|gentile"
    r"|ol[áa]|prezad[oa]"
    r"|beste|geachte|hej|kära|witaj|cześć|merhaba|sayın|здравствуй\w*|привет|уважаем\w*|вітаю|γεια σου|xin chào)"
    r"[,،、，]?\s?(?P<start>[^\n]+)"
    # Without capitals a comma tells whom from what.
    r"|^\W*(?:مرحبا|أهلا|سلام|שלום|नमस्ते|নমস্কার|வணக்கம்|สวัสดี|こんにちは|您好|你好|안녕하세요)"
    r"(?:[,،、，]\s?(?P<called>[^\n]+)|\s(?P<hailed>\S+(?: \S+)?)[,،!])",
    _I,
)
_TITLE: Final = re.compile(
    r"(?:^|[\s(\"'>:|])(?:M(?:r|rs|s|me|lle|iss|x)\.?|Mister|Madam|Sir|Dr\.?|Prof\.?|Herrn?|Frau|Monsieur|Madame"
    r"|Señora?|Sra?\.|Don|Doña|Senhora?|Signora?|Sig\.(?:ra)?|Dottor(?:essa)?|Mevrouw|Meneer|Pani?|Sayın|Bay(?:an)?"
    r"|Господин|Госпожа|г-н|г-жа|M\.)\s+(?P<name>[^\n]+)"
    r"|(?:^|\s)(?P<uncased>(?:السيدة?|الآنسة|الدكتورة?|آقای|خانم|מר|גברת)\s\S{2,}|(?:श्रीमती|श्री|திரு|นางสาว|นาย|นาง)\s?\S{2,})|(?P<thai>(?:ช่วย|กับ)คุณ\S{2,})"
)
_HONOURED: Final = re.compile(
    r"(?<![一-龯々ァ-ヶー])(?!お客|皆|神|王|殿|奥|仏|患者|読者|利用者|会員|顧客)[一-龯々ァ-ヶー]{2,8}(?:様|さん|さま|殿)(?![々子式態相])"
    r"|(?<![一-龯])(?:(?!先生|女士|小姐|[和与或及])[一-龯]){1,4}(?:先生|女士|小姐)|(?<![가-힣])(?!고객|회원|손|선생|부모|사장|교수)[가-힣]{2,4}\s?(?:님|씨)(?![가-힣]{3})"
)
_SUBJECT: Final = re.compile(
    rf"^\W*(?P<name>[^\s.:;!?][^\n.:;!?]{{1,60}}?)\s+(?:is|ist|est|es|è|é|är)\s+(?:an?|eine?|une?|una?|um|uma|en|ett)\s[^\n.]{{0,40}}"
    rf"\b{_WHO}\b",
    _I,
)
_NAMED: Final = re.compile(rf"\b{_WHO}(?: (?:named|called))?,? (?P<start>[^\n]+)", _I)
"""Somebody's name behind what they are: "customer Jane Doe"."""
_STREET: Final = re.compile(
    r"\b\d{4,6}\b[ ,]+(?-i:[^\W\d_a-z])\w+|\b\d{1,4} \w+ (?:street|st|road|rd|avenue|ave|lane)\b", _I
)

_PARTICLES: Final = frozenset(
    [
        "de",
        "da",
        "do",
        "dos",
        "das",
        "del",
        "della",
        "di",
        "du",
        "la",
        "le",
        "van",
        "von",
        "der",
        "den",
        "zu",
        "zur",
        "y",
        "e",
        "und",
        "et",
        "bin",
        "ibn",
        "al",
        "el",
        "ter",
        "ten",
        "af",
        "av",
    ]
)
_CASED: Final = re.compile(r"[^\W\d_]")
_SENTENCE_END: Final = re.compile(
    r"(?<!\b\w)(?<!\b[DMS]r)(?<!\bMs)(?<!\bMrs)(?<!\bMme)(?<!\bProf)[.!?;,،।。、，]+(?=\s|$|[^\x00-\xff])|[<|(\"（]|$"
)
_COPULAS: Final = re.compile(r"\s*(?:है|हैं|です|である|だ|입니다|이다|이에요|님|씨|ครับ|ค่ะ|是|।|।)[।.。]?\s*$")
_WHO_WORD: Final = re.compile(rf"(?:{_WHO}s?|{_ABOUT}|{_WHO_UNCASED})$", _I)
_WHO_ALONE: Final = re.compile(rf"(?:{_WHO}|{_WHO_UNCASED})$", _I)
_TITLES: Final = re.compile(r"^(?:(?:the|Mr|Mrs|Ms|Mme|Mlle|Dr|Prof|Herrn?|Frau|M|Sra?|Sig)\.?\s+)+(?=\S)")


def says_who(text: str) -> bool:
    """Whether a line holds data about somebody that may be figures alone: a number to call, a day of birth."""
    return _FIGURES.search(text) is not None


def is_labelled(text: str) -> bool:
    """Whether a line has a label that means a person, or what a person has, and a value that can be somebody's."""
    return any(_can_be_value(found) for found in _LABEL.finditer(text))


def begins_with_somebody(text: str) -> bool:
    """Whether the line's own label means a person: what follows is theirs, a date too."""
    found = _LABEL.search(text)
    return (
        found is not None
        and found.start() <= 2
        and _WHO_ALONE.match(found["label"]) is not None
        and _can_be_value(found)
    )


def is_about_somebody(text: str) -> bool:
    """Whether a line names a person, or has their data."""
    text = " ".join(text.split())
    if _CONTACT.search(text) is not None or is_labelled(text) or _HONOURED.search(text) is not None:
        return True
    for pattern in _PREDICATES:
        found = pattern.search(text)
        if found is not None and (_has_name(found)):
            return True
    greeted = _GREETING.search(text)
    if greeted is not None and _is_name(greeted["start"] or greeted["called"] or greeted["hailed"]):
        return True
    for title in _TITLE.finditer(text):
        if title["uncased"] or title["thai"] or _starts_with_name(title["name"]):
            return True
    subject = _SUBJECT.search(text)
    if subject is not None and _is_name(subject["name"]) and len(subject["name"].split()) > 1:
        return True
    return any(_starts_with_name(one["start"]) and _inside(one) for one in _NAMED.finditer(text)) or (
        _STREET.search(text) is not None
    )


def _has_name(found: re.Match[str]) -> bool:
    groups = found.groupdict()
    if groups.get("certain"):
        return True
    return _starts_with_name(groups["start"]) if groups.get("start") else _is_name(groups["name"])


def _inside(found: re.Match[str]) -> bool:
    """Whether the name stands in a sentence or alone behind the noun, and is no heading ("Customer Support Rules")."""
    return found[0][:1].islower() or _is_name(found["start"])


def _can_be_value(found: re.Match[str]) -> bool:
    """Whether what stands behind a label can be somebody's, and is no rule about them."""
    value = found["value"].strip(" \"'*`|{}[]_")
    if not value:
        return False
    words = value.split()
    if len(words) == 1 or any(sign.isdigit() for sign in value) or "@" in value:
        return True
    first = _CASED.search(words[0])
    if first is not None and first[0].islower():
        # "plan: gold yearly": few words that are no sentence.
        return len(words) <= 3 and not value.endswith((".", "!", "?"))
    said = _TITLES.sub("", re.split(r"[.!?;,<|(]\s?", value)[0]).split()
    return _is_name(value) or (len(said) <= _NAME_WORDS and _is_capital(first))


def _is_capital(first: re.Match[str] | None) -> bool:
    return first is not None and first[0].isupper()


def _is_name(complement: str) -> bool:
    """Whether what a sentence says of somebody, to its end, looks like a name: a few words with capitals, or, in a
    script that has none, a few signs."""
    text = _TITLES.sub("", _COPULAS.sub("", complement.strip(" \"'*`_")))
    end = _SENTENCE_END.search(text)
    text = text[: end.start()] if end else text
    words = text.split()
    if not 0 < len(words) <= _NAME_WORDS or len(text) > 4 * _NAME_SIGNS:
        return False
    return all(_is_name_word(word) for word in words) and _fits(text) and not _WHO_WORD.match(words[0])


def _fits(text: str) -> bool:
    return text.upper() != text.lower() or len(text) <= _NAME_SIGNS


def _is_name_word(word: str) -> bool:
    letter = _CASED.search(word)
    return word in _PARTICLES or (letter is not None and not letter[0].islower() and not word.isdigit())


def _starts_with_name(text: str) -> bool:
    """Whether a text begins with a word that can be a name, in a script that has capitals; else it must be one."""
    text = _TITLES.sub("", text.strip(" \"'*`_"))
    first = text.split()[0] if text.split() else ""
    letter = _CASED.search(first)
    if letter is None or _WHO_WORD.match(first.strip(".,:;!")):
        return False
    if letter[0].upper() == letter[0].lower():
        return _is_name(text)
    return letter[0].isupper() and first[1:2] != "" and not first.isupper()
