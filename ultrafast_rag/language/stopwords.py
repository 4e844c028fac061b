"""Words too common to say what a text is about; they also tell which language it is in.

Short closed-class lists of our own making: articles, pronouns, prepositions, auxiliaries, question words.
"""

from __future__ import annotations

_LISTS = {
    "english": """a about above after again against all also am an and any are as at be because been before being below between
        both but by can could d did do does doing don down during each few for from further had has have
        having he her here hers herself him himself his how i if in into is it its itself just ll m may me
        might more most must my myself no nor not now of off on once only or other our ours out over own re s
        same shall she should so some such t than that the their theirs them then there these they this those
        through to too under until up upon us ve very was we were what when where which while who whom whose
        why will with would you your yours""",
    "german": """ab aber alle allem allen aller alles als also am an ander andere anderen anderer anderes auch auf aus bei beim
        bin bis bist da dabei damit dann das dass dazu dein deine dem den denn der deren des dessen dich die
        dies diese diesem diesen dieser dieses dir doch dort du durch ein eine einem einen einer eines er es
        etwas euch euer für gegen gewesen hab habe haben hat hatte hatten hier hin hinter ich ihm ihn ihnen
        ihr ihre ihrem ihren ihrer ihres im in indem ins ist jede jedem jeden jeder jedes jene kann kein keine
        können könnte man manche mehr mein meine mich mir mit muss nach nicht nichts noch nun nur ob oder ohne
        sehr sein seine seinem seinen seiner seines seit sich sie sind so solche soll sollte sondern sonst
        über um und uns unser unter viel vom von vor wann war waren warum was wegen weil welche welchem
        welchen welcher welches wenn wer werde werden wie wieder will wir wird wo wofür woher wohin womit
        wurde wurden während würde zu zum zur zwar zwischen""",
    "french": """a ai alors au aucun aussi autre aux avait avant avec avoir c ce cela celle celui ces cet cette ceux chez comme
        comment d dans de depuis des donc dont du elle elles en encore entre es est et étaient était été être
        eu eux fait fut il ils j je l la le les leur leurs lors lorsque lui m ma mais me même mes moi mon n ne
        ni nos notre nous on ont ou où par pas pendant peu peut plus pour pourquoi qu quand que quel quelle
        quelles quels qui quoi s sa sans se selon sera ses si son sont sous sur t ta tandis te tes toi ton
        tous tout toute toutes très tu un une vers vos votre vous y à""",
    "spanish": """a al algo algunas algunos ante antes aquel como con contra cual cuales cuando cuándo cuál cuánto cuántos cómo
        de del desde donde dónde durante e el ella ellas ellos en entre era eran es esa ese eso esta estaba
        estas este esto estos está están fue fueron ha había han hasta hay la las le les lo los me mi mis
        mucho muy más ni no nos nosotros o os otra otro para pero poco por porque qué que quien quién quiénes
        se según ser si sido sin sobre son su sus también tanto te tiene tienen todo todos tu tus un una uno
        unos usted y ya yo él""",
    "italian": """a ad agli ai al alla alle allo anche avere aveva c che chi ci come con cosa cui d da dagli dai dal dalla dalle
        dallo degli dei del della delle dello di dopo dove e ed era erano essere fra fu furono gli ha hanno i
        il in io l la le lei lo loro lui ma me mi mia mio molto ne negli nei nel nella nelle nello noi non
        nostro o ogni per perché però più poi prima qual quale quali quando quanti quanto quella quello questa
        queste questi questo qui se sei si sia sono sotto stata stato su sua sue sugli sui sul sulla sulle suo
        suoi tra tu tutti tutto un una uno è""",
    "portuguese": """a ao aos aquela aquele as até com como da das de dela dele deles depois do dos e ela elas ele eles em entre
        era eram essa esse esta este está eu foi foram há isso isto já lhe mais mas me mesmo meu minha muito
        na nas nem no nos não nós o onde os ou para pela pelas pelo pelos por porque qual quais quando quanto
        que quem se seja sem ser seu seus sob sobre sua suas são só também te tem tinha tu têm um uma umas uns
        você vocês à às é""",
    "dutch": """aan al alles als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus een en er ge geen
        had heb hebben heeft hem het hier hij hoe hoeveel hun iets ik in is ja je kan kon kunnen maar me meer
        men met mij mijn moet na naar niet niets nog nu of om omdat onder ons ook op over reeds te tegen toch
        toen tot u uit uw van veel voor waar waarom wanneer want waren was wat welke werd werden wie wij wil
        worden wordt zal ze zelf zich zij zijn zo zonder zou""",
    "swedish": """alla allt att av bara blev bli blir de dem den denna deras dess det detta dig din du där efter ej eller en er
        ett från för ha hade han har hans hon honom hur här i icke ingen inte jag ju kan kunde man med mellan
        men mig min mot mycket ni nu när någon något några och om oss på samma sedan sig sin skulle som så
        till under upp ut utan vad var vara varför varit vem vi vid vilka vilken vilket än är åt över""",
    "danish": """ad af alle alt anden at blev blive bliver da de dem den denne der deres det dette dig din disse dog du efter
        eller en end er et for fra ham han hans har havde hende hun hvad hvem hver hvilke hvilken hvis hvor
        hvordan hvorfor hvornår i ikke ind jeg jo kunne man mange med meget men mig min mod ned noget nogle nu
        når og også om op os over på selv sig sin skal skulle som sådan til ud under var vi vil ville være
        været""",
    "norwegian": """alle at av bare begge ble blei bli blir da de deg den denne der dere deres det dette di din disse du eller en
        enn er et etter for fordi fra før ha hadde han hans har hennes her hun hva hvem hver hvilke hvilken
        hvis hvor hvordan hvorfor i ikke ingen inn jeg kan kom kunne man mange med meg mellom men min mot mye
        nei noe noen nå når og også om opp oss over på seg selv si sin skal skulle slik som så til under ut
        uten var ved vi vil ville være vært""",
    "finnish": """ei eivät eli emme en että hän he heidän hänen itse ja jo joiden joita joka jos jossa jota jotka jotta kanssa
        koska kuin kuinka kun me mikä mikään millä milloin missä mistä mitä mitkä mukaan mutta myös ne niiden
        niin niitä noin nyt oli olivat olla olisi ollut on ovat paljonko sama se sekä sen siitä sinä sitä tai
        tämä tämän vaan vain vaikka voi""",
    "polish": """a aby albo ale bardzo bez być był była było były by ci co czy dla do gdy gdzie go i ich ile im inne ja jak
        jaka jakie jako jego jej jest jeszcze już kiedy kto która które którego której który których którzy
        lub ma mi mnie może na nad nie niż o od oraz po pod przed przez przy się są ta tak także tam te tego
        tej ten to tu tylko tym w we wie więc wszystko z za ze że""",
    "turkish": """acaba ama ancak bana bazı belki ben beni benim bir biri birkaç biz bu buna bunda bundan bunu bunun da daha de
        defa diye en gibi hangi hangisi hem hep hepsi her hiç için ile ise kadar kaç ki kim kimi mi mu mü mı
        nasıl ne neden nerede nereye niçin o olan olarak oldu olduğu olup ona ondan onlar onu onun sen siz
        tarafından tüm ve veya ya yani""",
    "russian": """а без более бы был была были было быть в вам вас весь во вот все всего всех вы где да даже для до его ее ей
        ему если есть еще ещё её же за здесь и из или им их к как какая какие какой когда кого который которая
        которое которые кто ли лишь между меня мне много можно мой мы на над надо нас не него нее ней нет ни
        них но ну о об однако он она они оно от очень по под после потому почему при про с сам сколько со так
        также такой там то того тоже только том ты у уже хотя чего чем через что чтобы эта эти это этого этой
        этот я""",
    "romanian": """a acea aceasta această aceasta acei acel acela acele aceste acest acesta acestea acestei acestor
        acestui acum ai aici al ale alt alte altă am ar are as asta astfel asupra au avea avut aș ați aţi ca
        cărei cărui căror ce cea cei cel cele celor cine conform cu cui cum când cât câte câți câţi câtă
        către că da dacă dar de deci deja din doar după e ea ei el ele era erau este eu fel fi fie fiecare
        fiind foarte fost fără fost iar il in la lângă le li lor lui mai mei mele meu mi mult multe mulți
        mulţi ne nici niște nişte noastră noi nostru nu o ori orice pe pentru peste poate prin printre prea
        sa sau se sub sunt său sa și şi te toate tot toți toţi totuși tu un una unde unei unele unor unui
        unul va vi voi vor vă îi îl în între își îşi ăsta""",
    "greek": """αλλά αν από αυτά αυτές αυτή αυτήν αυτό αυτοί αυτού αυτούς αυτών αυτός για δε δεν εάν είναι είμαι είχαν είχε εκείνη
        εκείνο εκείνος εμείς ένα έναν ένας ενός ενώ εξής επειδή επίσης έτσι έχει έχουν ή η ήταν θα και κάθε κάποια
        κάποιο κάποιος κατά κι λόγω μας με μετά μεταξύ μέχρι μη μην μια μία μιας μόνο μου να ο οι όμως όπου όπως όσα όσο όταν ότι
        όχι παρά περίπου πιο ποια ποιά ποιαν ποιας ποιες ποιο ποιοι ποιον ποιος ποιός ποιου ποιους ποιων πολλά πολύ πόσα
        πόσες πόση πόσο πόσοι πόσος πόσους πόσων πότε που πού πριν προς πως πώς σαν σας σε στα στη στην στις στο στον
        στους στων συ σου τα τι της τη την τις το τον του τους των ως""",
    "arabic": """أم أما أن أنا أنت أنه أنها أو أي أية أين إذ إذا إلا إلى إن إنه إنها الآن التي الذي الذين اللذان اللتان اللاتي
        اللواتي بأن بعد بعض بل بما بماذا بها به بين بينما تلك ثم حتى حول حيث خلال ذلك سوف عدا عدد على عليه عليها عن عند
        عندما عنه عنها غير فإن في فيما فيه فيها قبل قد كان كانت كانوا كذلك كل كم كما كيف لا لأن لدى لقد لكن
        لكي لم لماذا لن له لها لهم لو ليس ليست ما ماذا متى مثل مع مما ممن من منذ منه منها نحو هؤلاء هذا هذه هل هم هما
        هنا هناك هو هي و وقد وكان وكانت ولا ولم ومن وهو وهي يكون تكون""",
    "hindi": """अगर अपना अपनी अपने अब आदि आप इन इनका इनकी इनके इन्हें इस इसका इसकी इसके इसमें इसलिए इसे उन उनका उनकी उनके उन्हें उन्होंने
        उस उसका उसकी उसके उसने उसमें उसे एक एवं ऐसा ऐसी ऐसे और कई कब कम कर करके करता करती करते करना करने कहा कहाँ कहां का किंतु कितना
        कितनी कितने किन किनके किया किस किसका किसकी किसके किसको किसने किसलिए किसी किसे की कुछ के केवल कैसा कैसी कैसे को कोई कौन कौनसा कौनसी
        कौनसे क्या क्यों गई गए गया चाहिए जब जबकि जहाँ जहां जा जाता जाती जाते जाना जाने जिन जिनका जिनके जिन्हें जिस जिसका जिसकी जिसके
        जिसमें जिसे जैसा जैसे जो तक तब तथा तरह तो था थी थीं थे दिया दी दो द्वारा न नहीं ने पर परंतु पहले फिर बहुत बाद बारे भी
        मगर मुझे में मेरा मेरी मेरे मैं यदि यह यहाँ यहां या ये रहा रही रहे लिए लिये लेकिन व वह वहाँ वहां वाला वाली वाले वे
        सकता सकती सकते सब सभी साथ से हम हर हालांकि ही हुआ हुई हुए हूँ हैं है हो होता होती होते होना होने""",
}
# What a question asks with in scripts without spaces: cut out of its runs, for no document has it to be found by
ASKING = """
    什么 什麼 甚麼 为什么 為什麼 为何 為何 哪里 哪裡 哪儿 哪些 哪个 哪個 哪一 哪 谁 誰 何时 何時 何地
    多少 多久 多长 怎么 怎麼 怎样 怎樣 如何 是否 吗 嗎 呢 いつ どこ だれ なぜ どの どれ どう どんな
    どちら どのように どうして いくつ いくら 何ですか 何でしょうか 何を 何が 何と ですか ますか でしたか
    ましたか のか อะไร ใคร ที่ไหน ไหน เมื่อไร เมื่อไหร่ เมื่อใด เท่าไร
    เท่าไหร่ เท่าใด อย่างไร ทำไม กี่ ใด ไหม หรือไม่ หรือเปล่า
    บ้าง 무엇 누구 어디 언제 어떻게 어느 어떤 얼마나 얼마 몇 អ្វី អ្វីខ្លះ នរណា
    ណាខ្លះ ណា ពេលណា ប៉ុន្មាន យ៉ាងដូចម្តេច ហេតុអ្វី ຫຍັງ ໃຜ ໃສ
    ເມື່ອໃດ ເທົ່າໃດ ແນວໃດ ຍ້ອນຫຍັງ ဘာ ဘယ်သူ ဘယ်လို ဘယ် ဘာကြောင့်
""".split()
STOP_WORDS: dict[str, frozenset[str]] = {language: frozenset(words.casefold().split()) for language, words in _LISTS.items()}
