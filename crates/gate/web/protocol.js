// The Pomelo binary protocol: bytes to values and back. Pure: no socket, no clock, no DOM.
//
// package   1 byte type, 3 bytes body length (big-endian), body
// message   (body of a DATA package) 1 byte flag, id (requests, responses), route (requests,
//           notifies, pushes), body: JSON, or protobuf for the routes the handshake defines

/** What a package carries. */
export const PackageType = Object.freeze({
  HANDSHAKE: 1,
  ACK: 2,
  HEARTBEAT: 3,
  DATA: 4,
  KICK: 5,
});

const HEAD_BYTES = 4;
const BODY_BYTES_MAX = 0xffffff;
const NO_BODY = new Uint8Array(0);

const MessageType = Object.freeze({ REQUEST: 0, NOTIFY: 1, RESPONSE: 2, PUSH: 3 });
const FLAG_COMPRESSED_ROUTE = 1;

const utf8Encoder = new TextEncoder();
// Not fatal: text that is not valid UTF-8 never costs the connection.
const utf8Decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Bytes from the server that break the protocol. */
export class ProtocolError extends Error {}

/** One package, ready for the socket. */
export function encodePackage(type, body = NO_BODY) {
  if (body.length > BODY_BYTES_MAX) throw new ProtocolError('package too large');
  const bytes = new Uint8Array(HEAD_BYTES + body.length);
  bytes[0] = type;
  bytes[1] = body.length >> 16;
  bytes[2] = (body.length >> 8) & 0xff;
  bytes[3] = body.length & 0xff;
  bytes.set(body, HEAD_BYTES);
  return bytes;
}

/** All packages of one WebSocket message: usually one, several are accepted. */
export function decodePackages(bytes) {
  const packages = [];
  let at = 0;
  while (at < bytes.length) {
    if (bytes.length - at < HEAD_BYTES) throw new ProtocolError('package head cut short');
    const length = (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    const end = at + HEAD_BYTES + length;
    if (end > bytes.length) throw new ProtocolError('package body cut short');
    packages.push({ type: bytes[at], body: bytes.subarray(at + HEAD_BYTES, end) });
    at = end;
  }
  return packages;
}

/** JSON text as UTF-8 bytes. */
export function encodeJson(value) {
  return utf8Encoder.encode(JSON.stringify(value));
}

/** The value of JSON bytes; `undefined` if they are not JSON. */
export function decodeJson(bytes) {
  try {
    return JSON.parse(utf8Decoder.decode(bytes));
  } catch {
    return undefined;
  }
}

/**
 * Messages of one connection, after its handshake: knows the route dictionary and the protobuf
 * definitions that the server announced.
 */
export class Codec {
  #routeToCode;
  #codeToRoute;
  #clientSchemas;
  #serverSchemas;

  /** `sys` is the member of that name in the server's handshake answer. */
  constructor(sys = {}) {
    this.#routeToCode = new Map(Object.entries(sys.routeToCode ?? sys.dict ?? {}));
    this.#codeToRoute = new Map([...this.#routeToCode].map(([route, code]) => [code, route]));
    this.#clientSchemas = compileSchemas(sys.protos?.client);
    this.#serverSchemas = compileSchemas(sys.protos?.server);
  }

  /** A request. `id` is 1 or more; the answer carries it. */
  encodeRequest(id, route, value) {
    const writer = new Writer();
    const code = this.#routeToCode.get(route);
    writer.byte((MessageType.REQUEST << 1) | (code === undefined ? 0 : FLAG_COMPRESSED_ROUTE));
    writer.varint(id);
    if (code === undefined) {
      const name = utf8Encoder.encode(route);
      if (name.length > 255) throw new ProtocolError('route too long');
      writer.byte(name.length);
      writer.bytes(name);
    } else {
      writer.byte(code >> 8);
      writer.byte(code & 0xff);
    }
    const schema = this.#clientSchemas.get(route);
    writer.bytes(schema ? encodeProtobuf(schema, value) : encodeJson(value));
    return writer.finish();
  }

  /** `{ id, body }` for a response, `{ route, body }` for a push. */
  decode(bytes) {
    const reader = new Reader(bytes);
    const flag = reader.byte();
    const type = (flag >> 1) & 7;
    if (type === MessageType.RESPONSE) {
      const id = reader.varint();
      return { id, body: decodeJson(reader.rest()) };
    }
    if (type !== MessageType.PUSH) throw new ProtocolError(`message type ${type} from a server`);
    const route = this.#readRoute(reader, flag);
    const schema = this.#serverSchemas.get(route);
    const body = reader.rest();
    return { route, body: schema ? decodeProtobuf(schema, body) : decodeJson(body) };
  }

  #readRoute(reader, flag) {
    if (!(flag & FLAG_COMPRESSED_ROUTE)) return utf8Decoder.decode(reader.take(reader.byte()));
    const code = (reader.byte() << 8) | reader.byte();
    const route = this.#codeToRoute.get(code);
    if (route === undefined) throw new ProtocolError(`route code ${code} is in no dictionary`);
    return route;
  }
}

// ---- protobuf, Pomelo's flavour: int32 is zigzag, repeated numbers are counted by element,
// wire types are written but never read

const WIRE_TYPES = { uInt32: 0, int32: 0, sInt32: 0, double: 1, string: 2, float: 5 };

function compileSchemas(definitions) {
  const schemas = new Map();
  for (const [route, definition] of Object.entries(definitions ?? {})) {
    // The handshake puts the version beside the routes.
    if (definition !== null && typeof definition === 'object') {
      schemas.set(route, compileSchema(definition, new Map()));
    }
  }
  return schemas;
}

function compileSchema(definition, outer) {
  const nested = new Map(outer);
  const schema = { byTag: new Map(), byName: new Map() };
  // A message may contain itself: its name is known before its fields are looked at.
  for (const [name, inner] of Object.entries(definition.__messages ?? {})) {
    nested.set(name, { definition: inner, schema: null });
  }
  for (const [name, field] of Object.entries(definition)) {
    if (name.startsWith('__') || typeof field?.tag !== 'number') continue;
    const compiled = {
      name,
      tag: field.tag,
      type: field.type,
      repeated: field.option === 'repeated',
      required: field.option === 'required',
      message: () => {
        const found = nested.get(field.type) ?? nested.get(`message ${field.type}`);
        if (!found) throw new ProtocolError(`no such protobuf type: ${field.type}`);
        found.schema ??= compileSchema(found.definition, nested);
        return found.schema;
      },
    };
    schema.byTag.set(field.tag, compiled);
    schema.byName.set(name, compiled);
  }
  return schema;
}

/** The fields of a protobuf body. An empty body is `{}`: the server had no string to send. */
function decodeProtobuf(schema, bytes) {
  const reader = new Reader(bytes);
  const value = {};
  while (!reader.atEnd()) {
    const tag = Math.floor(reader.varint() / 8);
    const field = schema.byTag.get(tag);
    if (!field) throw new ProtocolError(`unknown protobuf tag ${tag}`);
    if (!field.repeated) {
      value[field.name] = readScalar(field, reader);
    } else if (isPacked(field)) {
      const count = reader.varint();
      if (count > bytes.length) throw new ProtocolError('repeated field longer than its message');
      value[field.name] = Array.from({ length: count }, () => readScalar(field, reader));
    } else {
      (value[field.name] ??= []).push(readScalar(field, reader));
    }
  }
  return value;
}

function isPacked(field) {
  return field.type in WIRE_TYPES && field.type !== 'string';
}

function readScalar(field, reader) {
  switch (field.type) {
    case 'uInt32':
      return reader.varint();
    case 'int32':
    case 'sInt32': {
      const zigzag = reader.varint();
      return zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
    }
    case 'float':
      return reader.view(4).getFloat32(0, true);
    case 'double':
      return reader.view(8).getFloat64(0, true);
    case 'string':
      return utf8Decoder.decode(reader.take(reader.varint()));
    default:
      return decodeProtobuf(field.message(), reader.take(reader.varint()));
  }
}

function encodeProtobuf(schema, value) {
  const writer = new Writer();
  for (const [name, item] of Object.entries(value)) {
    const field = schema.byName.get(name);
    if (!field || item === undefined || item === null) continue;
    const tag = field.tag * 8 + (WIRE_TYPES[field.type] ?? 2);
    if (field.repeated && isPacked(field)) {
      writer.varint(tag);
      writer.varint(item.length);
      for (const element of item) writeScalar(field, element, writer);
    } else {
      for (const element of field.repeated ? item : [item]) {
        writer.varint(tag);
        writeScalar(field, element, writer);
      }
    }
  }
  for (const field of schema.byName.values()) {
    if (field.required && value[field.name] === undefined) {
      throw new ProtocolError(`missing protobuf field ${field.name}`);
    }
  }
  return writer.finish();
}

function writeScalar(field, value, writer) {
  switch (field.type) {
    case 'uInt32':
      return writer.varint(value);
    case 'int32':
    case 'sInt32':
      return writer.varint(value < 0 ? -value * 2 - 1 : value * 2);
    case 'float':
      return writer.view(4).setFloat32(0, value, true);
    case 'double':
      return writer.view(8).setFloat64(0, value, true);
    case 'string':
      return writer.counted(utf8Encoder.encode(String(value)));
    default:
      return writer.counted(encodeProtobuf(field.message(), value));
  }
}

// ---- cursors

class Reader {
  #bytes;
  #at = 0;

  constructor(bytes) {
    this.#bytes = bytes;
  }

  atEnd() {
    return this.#at >= this.#bytes.length;
  }

  byte() {
    return this.take(1)[0];
  }

  take(count) {
    const end = this.#at + count;
    if (end > this.#bytes.length) throw new ProtocolError('message cut short');
    const part = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return part;
  }

  view(count) {
    const part = this.take(count);
    return new DataView(part.buffer, part.byteOffset, count);
  }

  rest() {
    return this.take(this.#bytes.length - this.#at);
  }

  /** Unsigned LEB128. Multiplied, not shifted: ids and tags may pass 31 bits. */
  varint() {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (scale > 2 ** 49) throw new ProtocolError('number too long');
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }
}

class Writer {
  #parts = [];
  #length = 0;

  bytes(bytes) {
    this.#parts.push(bytes);
    this.#length += bytes.length;
  }

  byte(value) {
    this.bytes(Uint8Array.of(value));
  }

  view(count) {
    const part = new Uint8Array(count);
    this.bytes(part);
    return new DataView(part.buffer);
  }

  counted(bytes) {
    this.varint(bytes.length);
    this.bytes(bytes);
  }

  varint(value) {
    let rest = value;
    while (rest >= 128) {
      this.byte((rest % 128) | 0x80);
      rest = Math.floor(rest / 128);
    }
    this.byte(rest);
  }

  finish() {
    const all = new Uint8Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}
