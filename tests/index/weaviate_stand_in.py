"""As much of Weaviate as its client speaks here: schema over REST, objects and questions over gRPC, by that client's stubs."""

from __future__ import annotations

import contextlib
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from stand_ins import HttpServer
from weaviate.proto.v1 import base_pb2, batch_delete_pb2, batch_pb2, search_get_pb2, weaviate_pb2_grpc

KEY = "right-key"
ROOM = [("grpc.max_receive_message_length", 100 * 2**20)]
# what a server adds to what it was asked for: the defaults of Weaviate's documentation
HNSW = {"cleanupIntervalSeconds": 300,
        "dynamicEfMin": 100, "dynamicEfMax": 500, "dynamicEfFactor": 8, "ef": -1, "efConstruction": 128,
        "filterStrategy": "sweeping", "flatSearchCutoff": 40000, "maxConnections": 32, "skip": False,
        "vectorCacheMaxObjects": 1_000_000_000_000}  # fmt: skip


class Weaviate(weaviate_pb2_grpc.WeaviateServicer):
    def __init__(self):
        self.schema, self.rows, self.fail = {}, {}, [0]

    # REST

    def answer(self, method, path, headers, body):
        if headers.get("authorization") != f"Bearer {KEY}":
            return 401, {"error": [{"message": "anonymous access not enabled"}]}
        parts = path.split("?")[0].strip("/").split("/")[1:]
        if parts == ["meta"]:
            return 200, {"version": "1.33.0", "hostname": "http://[::]:8080", "modules": {}}
        if method == "POST" and parts == ["schema"]:
            spaces = {
                name: {**space, "vectorIndexConfig": {**HNSW, **space["vectorIndexConfig"]}}
                for name, space in body["vectorConfig"].items()
            }
            about = {**body, "vectorConfig": spaces, "properties": [_declared(each) for each in body["properties"]]}
            self.schema[body["class"]] = about
            self.rows[body["class"]] = {}
            return 200, self.schema[body["class"]]
        about = self.schema.get(parts[1])
        if about is None:
            return 404, {"error": [{"message": "no such class"}]}
        if parts[2:] == ["properties"]:
            about["properties"].append(_declared(body))
            return 200, body
        return 200, about

    # gRPC

    def _kinds(self, name):
        return {each["name"]: each["dataType"][0] for each in self.schema[name]["properties"]}

    def _refuse(self, context):
        if ("authorization", f"Bearer {KEY}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        if self.fail[0]:
            self.fail[0] -= 1
            context.abort(grpc.StatusCode.INTERNAL, "failing as told")

    def BatchObjects(self, request, context):
        self._refuse(context)
        for each in request.objects:
            vector = each.vectors[0].vector_bytes if each.vectors else each.vector_bytes
            properties = dict(each.properties.non_ref_properties)
            kinds = self._kinds(each.collection)
            assert set(properties) <= set(kinds), "a field that was not declared"
            whole = {name: int(value) if kinds[name] == "int" else value for name, value in properties.items()}
            self.rows[each.collection][uuid.UUID(each.uuid)] = (np.frombuffer(vector, "<f4"), whole)
        return batch_pb2.BatchObjectsReply(took=0.0)

    def BatchDelete(self, request, context):
        self._refuse(context)
        rows = self.rows[request.collection]
        gone = [name for name, (_, about) in rows.items() if _holds(request.filters, name, about)]
        for name in gone:
            del rows[name]
        return batch_delete_pb2.BatchDeleteReply(matches=len(gone), successful=len(gone))

    def Search(self, request, context):
        self._refuse(context)
        rows = self.rows[request.collection]
        if request.HasField("filters"):
            rows = {name: row for name, row in rows.items() if _holds(request.filters, name, row[1])}
        names = sorted(rows)
        if request.HasField("near_vector"):
            found = _best({name: _cosine(rows[name][0], _vector(request.near_vector)) for name in names}, request.limit)
        elif request.HasField("hybrid_search"):
            hybrid = request.hybrid_search
            alpha = hybrid.alpha_param if hybrid.use_alpha_param else hybrid.alpha
            meaning = _relative({name: _cosine(rows[name][0], _vector(hybrid)) for name in names})
            wanted = set(hybrid.query.split())
            counts = {name: sum(word in wanted for word in str(rows[name][1].get("words", "")).split()) for name in names}
            words = _relative({name: count for name, count in counts.items() if count})
            found = _best({n: alpha * meaning[n] + (1 - alpha) * words.get(n, 0.0) for n in names}, request.limit)
        else:
            after = uuid.UUID(request.after).int if request.after else -1
            found = [(name, 0.0) for name in names if name.int > after][: request.limit]
        kinds = self._kinds(request.collection)
        return search_get_pb2.SearchReply(results=[_result(name, score, rows[name][1], kinds) for name, score in found])


@contextlib.contextmanager
def serving():
    """The stand-in, its REST server and the address of its gRPC door."""
    stand_in = Weaviate()
    server = grpc.server(ThreadPoolExecutor(4), options=ROOM)
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with HttpServer(stand_in.answer) as http:
            yield stand_in, http, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _declared(field):
    return {"indexFilterable": True, "indexSearchable": field["dataType"] == ["text"], "indexRangeFilters": False, **field}


def _vector(asked):
    content = asked.vectors[0].vector_bytes if asked.vectors else asked.vector_bytes
    if not content and hasattr(asked, "near_vector"):
        return _vector(asked.near_vector)
    return np.frombuffer(content, "<f4") if content else np.array(asked.vector, np.float32)


def _cosine(one, other):
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _relative(scores):
    low, high = (min(scores.values()), max(scores.values())) if scores else (0.0, 0.0)
    return {name: (score - low) / (high - low) if high > low else 1.0 for name, score in scores.items()}


def _best(scores, limit):
    return sorted(scores.items(), key=lambda pair: -pair[1])[:limit]


def _holds(asked, name, about):
    operators = base_pb2.Filters
    if asked.operator == operators.OPERATOR_AND:
        return all(_holds(each, name, about) for each in asked.filters)
    field = asked.target.property or asked.on[0]
    value = str(name) if field == "_id" else about.get(field)
    given = getattr(asked, asked.WhichOneof("test_value"))
    if asked.operator == operators.OPERATOR_CONTAINS_ANY:
        return value in list(given.values)
    assert asked.operator == operators.OPERATOR_EQUAL
    return value == given


def _result(name, score, about, kinds):
    result = search_get_pb2.SearchResult()
    result.metadata.id_as_bytes = name.bytes
    result.metadata.distance, result.metadata.distance_present = 1 - score, True
    result.metadata.score, result.metadata.score_present = score, True
    for field, value in about.items():
        setattr(result.properties.non_ref_props.fields[field], {"int": "int_value", "text": "text_value"}[kinds[field]], value)
    return result
