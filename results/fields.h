// The fields of each kind of record, named once for writing and for reading. A visitor has need(), may() and if_set(),
// each called with a field's name and its value: `need` fields must be present in a file that is read, `may` fields
// keep their default, `if_set` fields are optional values that are written only where there is one. Only store.cc has
// need of this.
#pragma once

#include <string_view>
#include <type_traits>

#include "results/record.h"

namespace gradrail {

template <class Visit, class T>
void machine_fields(Visit& visit, T& machine) {
  visit.may("hostname", machine.hostname);
  visit.may("cpu_model", machine.cpu_model);
  visit.may("cores", machine.cores);
  visit.may("sockets", machine.sockets);
  visit.may("numa_nodes", machine.numa_nodes);
  visit.may("l1d_bytes", machine.l1d_bytes);
  visit.may("l2_bytes", machine.l2_bytes);
  visit.may("l3_bytes", machine.l3_bytes);
  visit.may("memory_bytes", machine.memory_bytes);
  visit.may("kernel", machine.kernel);
  visit.may("os", machine.os);
  visit.may("virtualisation", machine.virtualisation);
  visit.may("governor", machine.governor);
  visit.may("thp", machine.thp);
  visit.may("simd", machine.simd);
}

template <class Visit, class T>
void build_fields(Visit& visit, T& build) {
  visit.may("version", build.version);
  visit.may("commit", build.commit);
  visit.may("type", build.type);
  visit.may("compiler", build.compiler);
  visit.may("flags", build.flags);
  visit.may("sanitize", build.sanitize);
  visit.may("libraries", build.libraries);
}

template <class Visit, class T>
void job_fields(Visit& visit, T& job) {
  visit.may("ranks", job.ranks);
  visit.may("hosts", job.hosts);
  visit.may("origin", job.origin);
  visit.may("cpus", job.cpus);
}

template <class Visit, class T>
void run_fields(Visit& visit, T& run) {
  visit.need("schema", run.schema);
  visit.may("started", run.started);
  visit.need("machine", run.machine);
  visit.need("build", run.build);
  visit.may("job", run.job);
  visit.need("args", run.args);
}

template <class Visit, class T>
void timing_fields(Visit& visit, T& timing) {
  visit.need("median", timing.median);
  visit.need("ci", timing.ci);
  visit.may("p95", timing.p95);
  visit.may("p99", timing.p99);
  visit.may("min", timing.min);
  visit.may("max", timing.max);
  visit.may("cv", timing.cv);
  visit.need("n", timing.n);
  visit.may("batch", timing.batch);
}

template <class Visit, class T>
void point_fields(Visit& visit, T& point) {
  visit.need("library", point.library);
  visit.need("collective", point.collective);
  visit.need("algorithm", point.algorithm);
  visit.if_set("requested", point.requested);
  visit.need("transport", point.transport);
  visit.need("topology", point.topology);
  visit.need("ranks", point.ranks);
  visit.need("bytes", point.bytes);
  visit.need("count", point.count);
  visit.need("type", point.type);
  visit.may("op", point.op);
  visit.may("root", point.root);
  visit.may("in_place", point.in_place);
  visit.may("buffers", point.buffers);
  visit.if_set("memory", point.memory);
  visit.may("cache", point.cache);
  visit.if_set("bind", point.bind);
  visit.may("path", point.path);
  visit.if_set("via", point.via);
  visit.may("lanes", point.lanes);
  visit.may("chunks", point.chunks);
  visit.may("wrong", point.wrong);
  visit.may("phase", point.phase);
  visit.may("time_us", point.time_us);
  visit.may("algbw_gbs", point.algbw_gbs);
  visit.may("busbw_gbs", point.busbw_gbs);
  visit.if_set("model_us", point.model_us);
  visit.if_set("expected_gbs", point.expected_gbs);
  visit.if_set("expected_share", point.expected_share);
  visit.if_set("codec", point.codec);
  visit.if_set("requested_codec", point.requested_codec);
  visit.if_set("codec_where", point.codec_where);
  visit.if_set("wire_bytes", point.wire_bytes);
  visit.if_set("wire_ratio", point.wire_ratio);
  visit.if_set("encode_us", point.encode_us);
  visit.if_set("wire_us", point.wire_us);
  visit.if_set("decode_us", point.decode_us);
  visit.if_set("rel_l2_error", point.rel_l2_error);
  visit.if_set("max_error", point.max_error);
  visit.if_set("break_even_gbs", point.break_even_gbs);
  visit.if_set("non_finite", point.non_finite);
  visit.if_set("error", point.error);
  visit.may("samples_us", point.samples_us);  // last: the rest of the line stays readable
}

template <class Visit, class T>
void limits_fields(Visit& visit, T& limits) {
  visit.may("phase", limits.phase);
  visit.need("core_to_core_ns", limits.core_to_core_ns);
  visit.need("memory_gbs", limits.memory_gbs);
}

template <class Visit, class T>
void choice_fields(Visit& visit, T& choice) {
  visit.may("collective", choice.collective);
  visit.may("transport", choice.transport);
  visit.may("topology", choice.topology);
  visit.may("ranks", choice.ranks);
  visit.may("type", choice.type);
  visit.may("op", choice.op);
  visit.need("bytes", choice.bytes);
  visit.need("algorithm", choice.algorithm);
  visit.may("margin", choice.margin);
  visit.may("confident", choice.confident);
  visit.may("runner_up", choice.runner_up);
}

template <class Visit, class T>
void peer_fields(Visit& visit, T& peer) {
  visit.need("library", peer.library);
  visit.need("configuration", peer.configuration);
  visit.may("transport", peer.transport);
  visit.may("ranks", peer.ranks);
  visit.may("version", peer.version);
  visit.may("command", peer.command);
  visit.may("environment", peer.environment);
  visit.if_set("error", peer.error);
}

template <class Visit, class T>
void comparison_fields(Visit& visit, T& comparison) {
  visit.may("collective", comparison.collective);
  visit.may("transport", comparison.transport);
  visit.may("topology", comparison.topology);
  visit.may("ranks", comparison.ranks);
  visit.may("type", comparison.type);
  visit.may("op", comparison.op);
  visit.need("bytes", comparison.bytes);
  visit.may("in_place", comparison.in_place);
  visit.may("buffers", comparison.buffers);
  visit.may("cache", comparison.cache);
  visit.may("phase", comparison.phase);
  visit.need("algorithm", comparison.algorithm);
  visit.need("ours_us", comparison.ours_us);
  visit.need("peer", comparison.peer);
  visit.need("configuration", comparison.configuration);
  visit.need("peer_us", comparison.peer_us);
  visit.need("ratio", comparison.ratio);
  visit.may("ci", comparison.ci);
}

template <class Visit, class T>
void p2p_fields(Visit& visit, T& point) {
  visit.need("test", point.test);
  visit.need("transport", point.transport);
  visit.if_set("operation", point.operation);
  visit.need("from", point.from);
  visit.need("to", point.to);
  visit.may("from_host", point.from_host);
  visit.may("to_host", point.to_host);
  visit.need("bytes", point.bytes);
  visit.may("depth", point.depth);
  visit.may("lanes", point.lanes);
  visit.may("buffers", point.buffers);
  visit.may("memory", point.memory);
  visit.if_set("memory_path", point.memory_path);
  visit.if_set("to_memory_path", point.to_memory_path);
  visit.if_set("bind", point.bind);
  visit.may("path", point.path);
  visit.may("iterations", point.iterations);
  visit.may("rounds", point.rounds);
  visit.may("wrong", point.wrong);
  visit.may("time_us", point.time_us);
  visit.may("average_us", point.average_us);
  visit.may("stdev_us", point.stdev_us);
  visit.may("p999_us", point.p999_us);
  visit.may("bandwidth_gbs", point.bandwidth_gbs);
  visit.may("message_mpps", point.message_mpps);
  visit.if_set("expected_gbs", point.expected_gbs);
  visit.if_set("expected_share", point.expected_share);
  visit.if_set("z_score", point.z_score);
  visit.if_set("error", point.error);
  visit.may("samples_us", point.samples_us);
}

template <class Visit, class T>
void fields_of(Visit& visit, T& value) {
  using Plain = std::remove_const_t<T>;
  if constexpr (std::is_same_v<Plain, Machine>)
    machine_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Build>)
    build_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Job>)
    job_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Run>)
    run_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Timing>)
    timing_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Point>)
    point_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Limits>)
    limits_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, PeerRecord>)
    peer_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Comparison>)
    comparison_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, P2pPoint>)
    p2p_fields(visit, value);
  else
    choice_fields(visit, value);
}

template <class T>
concept HasFields = std::is_same_v<T, Machine> || std::is_same_v<T, Build> || std::is_same_v<T, Job> ||
    std::is_same_v<T, Timing>;  // objects inside a record

template <class T>
inline constexpr std::string_view k_kind = "";
template <>
inline constexpr std::string_view k_kind<Run> = "run";
template <>
inline constexpr std::string_view k_kind<Point> = "point";
template <>
inline constexpr std::string_view k_kind<Limits> = "limits";
template <>
inline constexpr std::string_view k_kind<Choice> = "choice";
template <>
inline constexpr std::string_view k_kind<PeerRecord> = "peer";
template <>
inline constexpr std::string_view k_kind<Comparison> = "comparison";
template <>
inline constexpr std::string_view k_kind<P2pPoint> = "p2p";

}  // namespace gradrail
